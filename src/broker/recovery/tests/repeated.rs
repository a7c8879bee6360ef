//! What a publisher is told that repeats a message: that it is kept, and so the first one has to be.

use super::*;

/// Publishes it twice; returns what each time waits for, and where the log ended then.
fn published_twice(story: &mut Story, publish: &Publish) -> [(Option<Position>, Position); 2] {
    [(); 2].map(|()| {
        let (message, exchange) = story.message(publish);
        let mut turn = Turn::new(&story.broker, story.now);
        let route = story.vhost().route(&exchange, &message, &[], None, &mut turn);
        let mut batch = Batch::default();
        batch.push(message, &Arc::new(route));
        batch.place(&mut turn, &mut Vec::new());
        let gate = turn.take_gate();
        turn.end();
        (gate, story.journal.end())
    })
}

#[test]
fn repetition_waits_until_the_first_message_is_on_the_disk() {
    // In a queue that knows names, and behind an exchange that does.
    let mut story = told(&[declare(0, 11), declare(1, 0)]);
    story.run(&Op::DeclareExchange { name: 1, kind: 7 });
    story.run(&Op::Bind { exchange: 1, queue: 1, key: 1 });
    for (exchange, key) in [(0, 0), (2, 1)] {
        let publish = Publish { id: Some(1), ..message(exchange, key) };
        let [first, again] = published_twice(&mut story, &publish);
        assert_eq!(first.0, Some(first.1));
        assert_eq!(again, first, "nothing was recorded, and the same is waited for");
        assert_eq!(bodies(&story.broker, key).len(), 1);
    }
}

#[test]
fn repetition_that_is_sent_alone_waits_as_well() {
    let mut story = told(&[declare(0, 11)]);
    let queue = story.vhost().queue(&queue_name(0)).unwrap();
    let mut gates = [(); 2].map(|()| {
        let (message, _) = story.message(&Publish { id: Some(1), ..message(0, 0) });
        let mut turn = Turn::new(&story.broker, story.now);
        queue.publish_each(std::iter::once((message, None)), &mut turn).unwrap();
        let gate = turn.take_gate();
        turn.end();
        gate
    });
    assert!(gates[0].is_some());
    gates.sort();
    assert_eq!(gates[0], gates[1]);
}

#[test]
fn crash_leaves_a_message_and_its_name_or_neither() {
    for is_alone in [true, false] {
        let mut story = told(&[declare(0, 11)]);
        let before = story.journal.all().len();
        let publish = Publish { id: Some(1), ..message(0, 0) };
        let send = |story: &mut Story, broker: &Broker| {
            let (message, exchange) = story.message(&publish);
            let mut turn = Turn::new(broker, story.now);
            let vhost = broker.vhost("/").unwrap();
            if is_alone {
                let queue = vhost.queue(&queue_name(0)).unwrap();
                queue.publish_each(std::iter::once((message, None)), &mut turn).unwrap();
            } else {
                let route = vhost.route(&exchange, &message, &[], None, &mut turn);
                let mut batch = Batch::default();
                batch.push(message, &Arc::new(route));
                batch.place(&mut turn, &mut Vec::new());
            }
            turn.end();
        };
        let broker = std::mem::replace(&mut story.broker, Broker::new(Options::default(), Time(0)).unwrap());
        send(&mut story, &broker);
        for cut in before..=story.journal.all().len() {
            let left = open(story.journal.read(cut), &Arc::default(), story.now);
            send(&mut story, &left);
            assert_eq!(bodies(&left, 0).len(), 1, "after {cut} records");
        }
    }
}
