//! Deliveries of SNS that others make: a webhook and a mail relay, each a fake one in this process.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use serde_json::{Value, json};

use crate::{
    aws::Client,
    broker::{Broker, DEADLINE, until},
    sns::{call, inner},
};

/// Serves each connection by a function, on a port of its own, until the test ends.
fn serve<T: Send + 'static>(serve: fn(TcpStream, &Sender<T>)) -> (u16, Receiver<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (said, heard) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let said = said.clone();
            thread::spawn(move || serve(stream, &said));
        }
    });
    (port, heard)
}

/// A webhook that is overloaded at every first attempt.
fn webhook(stream: TcpStream, said: &Sender<Value>) {
    let mut output = stream.try_clone().unwrap();
    let mut input = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if input.read_line(&mut line).unwrap_or_default() == 0 {
                return;
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        input.read_exact(&mut body).unwrap();
        let told: Value = serde_json::from_slice(&body).unwrap();
        let status = if told["Attempt"] == 1 { "503 Service Unavailable" } else { "200 OK" };
        if said.send(told).is_err() {
            return;
        }
        output.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).unwrap();
    }
}

/// A mail relay. It has no time for the first mail to anybody whose name begins with `late`.
fn relay(stream: TcpStream, said: &Sender<String>) {
    let mut output = stream.try_clone().unwrap();
    let mut input = BufReader::new(stream);
    let mut answer = |text: &str| output.write_all(format!("{text}\r\n").as_bytes()).is_ok();
    answer("220 relay");
    loop {
        let mut line = String::new();
        if input.read_line(&mut line).unwrap_or_default() == 0 {
            return;
        }
        let verb = line.trim().to_uppercase();
        match verb.get(..4).unwrap_or_default() {
            "EHLO" | "HELO" => answer("250 relay"),
            "MAIL" => answer("250 ok"),
            "RCPT" if verb.contains("<LATE") && is_first(&verb) => answer("451 later"),
            "RCPT" if verb.contains("<NOBODY") => answer("550 there is nobody"),
            "RCPT" => answer("250 ok"),
            "DATA" => {
                answer("354 go on");
                let mut mail = String::new();
                while !mail.ends_with("\r\n.\r\n") {
                    if input.read_line(&mut mail).unwrap_or_default() == 0 {
                        return;
                    }
                }
                // Lines of encoded text that were cut are put together.
                drop(said.send(mail.replace("=\r\n", "").replace("=3D", "=")));
                answer("250 taken")
            }
            "QUIT" => {
                answer("221 bye");
                return;
            }
            _ => answer("250 ok"),
        };
    }
}

fn is_first(recipient: &str) -> bool {
    static SEEN: std::sync::Mutex<Vec<String>> = std::sync::Mutex::new(Vec::new());
    let mut seen = SEEN.lock().unwrap();
    let is_first = !seen.iter().any(|known| known == recipient);
    seen.push(recipient.to_owned());
    is_first
}

fn deliveries(client: &mut Client) -> Value {
    client.send("GET", "/_tern/sns/deliveries", &[], b"").json()
}

#[test]
fn what_nobody_here_delivers_is_posted_to_the_webhook_until_it_takes_it() {
    let (port, heard) = serve(webhook);
    let webhook = format!("aws.delivery_webhook=http://127.0.0.1:{port}/sns");
    let broker = Broker::with(&[&webhook, "aws.delivery_retry_min_ms=20"]);
    let mut client = Client::open(&broker);
    call(&mut client, "Publish", &[("PhoneNumber", "+15551234567"), ("Message", "to a phone"), ("Subject", "s")]);
    let first = heard.recv_timeout(DEADLINE).unwrap();
    let again = heard.recv_timeout(DEADLINE).unwrap();
    assert_eq!((&first["Attempt"], &again["Attempt"]), (&json!(1), &json!(2)));
    assert_eq!(first["MessageId"], again["MessageId"]);
    assert_eq!(
        [&again["Protocol"], &again["Endpoint"], &again["Message"], &again["Subject"], &again["Type"]],
        ["sms", "+15551234567", "to a phone", "s", "Notification"]
    );
    let topic = inner(&call(&mut client, "CreateTopic", &[("Name", "t")]), "TopicArn");
    let lambda = "arn:aws:lambda:us-east-1:000000000000:function:f";
    let subscribe = [("TopicArn", topic.as_str()), ("Protocol", "lambda"), ("Endpoint", lambda)];
    let arn = inner(&call(&mut client, "Subscribe", &subscribe), "SubscriptionArn");
    let parameters = [
        ("TopicArn", topic.as_str()),
        ("Message", "to a function"),
        ("MessageAttributes.entry.1.Name", "kind"),
        ("MessageAttributes.entry.1.Value.DataType", "String"),
        ("MessageAttributes.entry.1.Value.StringValue", "gift"),
    ];
    let published = inner(&call(&mut client, "Publish", &parameters), "MessageId");
    heard.recv_timeout(DEADLINE).unwrap();
    let told = heard.recv_timeout(DEADLINE).unwrap();
    assert_eq!([&told["SubscriptionArn"], &told["TopicArn"], &told["MessageId"]], [&arn, &topic, &published]);
    assert_eq!(told["MessageAttributes"], json!({"kind": {"Type": "String", "Value": "gift"}}));
    let envelope: Value = serde_json::from_str(told["Notification"].as_str().unwrap()).unwrap();
    assert_eq!((&envelope["Message"], &envelope["MessageId"]), (&json!("to a function"), &json!(published)));
    until("both are counted", || {
        let page = deliveries(&mut client);
        let delivered = |of: &Value| of["Delivered"] == 1 && of["FailedAttempts"] == 1;
        page["Deliveries"].as_array().unwrap().iter().filter(|of| delivered(of)).count() == 2
    });
    let attempts = deliveries(&mut client)["Attempts"].clone();
    let outcomes: Vec<_> = attempts.as_array().unwrap().iter().map(|of| of["Outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["Delivered", "Retried", "Delivered", "Retried"]);
    let outbox = client.send("GET", "/_tern/sns/outbox", &[], b"").json();
    assert_eq!((&outbox["Waiting"], &outbox["Dropped"]), (&json!(0), &json!(0)));
}

#[test]
fn mails_are_confirmed_by_their_link_and_taken_by_the_relay() {
    let (port, heard) = serve(relay);
    let relay = format!("aws.smtp_relay=smtp://127.0.0.1:{port}");
    let broker = Broker::with(&[&relay, "aws.smtp_from=sns@example.com", "aws.delivery_retry_min_ms=20"]);
    let mut client = Client::open(&broker);
    let named = [("Name", "t"), ("Attributes.entry.1.key", "DisplayName"), ("Attributes.entry.1.value", "Weather")];
    let topic = inner(&call(&mut client, "CreateTopic", &named), "TopicArn");
    for (protocol, endpoint) in [("email", "late@example.com"), ("email-json", "json@example.com")] {
        let parameters = [("TopicArn", topic.as_str()), ("Protocol", protocol), ("Endpoint", endpoint)];
        assert!(call(&mut client, "Subscribe", &parameters).contains("pending confirmation"));
        let question = heard.recv_timeout(DEADLINE).unwrap();
        assert!(question.contains(&format!("To: {endpoint}")), "{question}");
        assert!(question.contains("From: Weather <sns@example.com>"), "{question}");
        assert!(question.contains("Subject: AWS Notification - Subscription Confirmation"), "{question}");
        let link = &question[question.find("/?Action=ConfirmSubscription").unwrap()..];
        let link = &link[..link.find(['\r', '\n', '"', ' ']).unwrap()];
        let answer = client.send("GET", link, &[], b"");
        assert_eq!(answer.status, 200, "{link}: {}", answer.text());
    }
    call(&mut client, "Publish", &[("TopicArn", &topic), ("Subject", "Rain"), ("Message", "It rains.")]);
    let mut mails = [heard.recv_timeout(DEADLINE).unwrap(), heard.recv_timeout(DEADLINE).unwrap()];
    mails.sort_by_key(|mail| mail.contains("To: json@"));
    assert!(mails.iter().all(|mail| mail.contains("Subject: Rain")), "{mails:?}");
    assert!(mails[0].contains("\r\nIt rains.\r\n") && mails[0].contains("/?Action=Unsubscribe"), "{}", mails[0]);
    assert!(mails[1].contains(r#""Message" : "It rains.""#), "{}", mails[1]);
    // An address that the relay refuses is given up at once.
    let parameters = [("TopicArn", topic.as_str()), ("Protocol", "email"), ("Endpoint", "nobody@example.com")];
    call(&mut client, "Subscribe", &parameters);
    until("it is given up", || {
        let attempts = deliveries(&mut client)["Attempts"].clone();
        let of = |of: &&Value| of["Endpoint"] == "nobody@example.com";
        attempts.as_array().unwrap().iter().find(of).is_some_and(|of| of["Outcome"] == "Dropped")
    });
}
