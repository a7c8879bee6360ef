//! Subscriptions with `browser:true`: a client looks at the messages of a queue, and takes none.
//!
//! It sees what is there when it comes, as far as that is not taken meanwhile, and then the end.

use std::sync::Arc;

use super::{
    super::super::{
        codec,
        output::{self, Subscribed},
    },
    Speaker,
};
use crate::broker::{
    consumer::Delivery,
    queue::{Queue, cold::BrowsePlace},
    selection::{Subject, selects},
    selector::Selector,
    time::Time,
    turn::Turn,
    verb::Verb,
};

/// A client that looks through a queue.
pub(super) struct Browser {
    /// The subscription that it is.
    pub(super) number: u64,
    queue: Arc<Queue>,
    selector: Option<Arc<Selector>>,
    subscribed: Subscribed,
    place: Option<BrowsePlace>,
    /// Messages that were there when it came and were not looked at.
    left: u64,
}

/// Messages that are looked at in one go.
const PAGE: usize = 64;
/// Milliseconds after which a browser looks whether its client has read on.
const PAUSE_MS: u64 = 10;

impl Browser {
    pub(super) fn new(number: u64, queue: Arc<Queue>, selector: Option<Arc<Selector>>, subscribed: Subscribed) -> Self {
        let status = queue.status();
        Self { number, left: status.ready + status.unsettled, queue, selector, subscribed, place: None }
    }
}

impl Speaker<'_> {
    /// Shows browsers what comes next, as long as the client reads it.
    pub(super) fn browse(&mut self, turn: &mut Turn<'_>) {
        self.activemq.browse_at = Time::NEVER;
        let mut browsers = std::mem::take(&mut self.activemq.browsers);
        browsers.retain_mut(|browser| !self.browse_on(browser, turn));
        self.activemq.browsers = browsers;
        turn.flush_later(self.shared.clone());
    }

    /// Whether a browser has come to its end.
    fn browse_on(&mut self, browser: &mut Browser, turn: &mut Turn<'_>) -> bool {
        while browser.left > 0 {
            if self.shared.is_full() {
                self.activemq.browse_at = self.activemq.browse_at.min(turn.now.after_ms(PAUSE_MS));
                return false;
            }
            // Registered first: what comes after this look wakes the connection again.
            let page = match browser.queue.browse(browser.place, PAGE, turn) {
                Verb::Done(page) => page,
                Verb::Pending(_) => {
                    self.shared.wait(&self.broker);
                    match browser.queue.browse(browser.place, PAGE, turn) {
                        Verb::Done(page) => page,
                        Verb::Pending(_) => return false,
                    }
                }
            };
            let fields = self.broker.fields();
            for one in page.messages.iter().take(usize::try_from(browser.left).unwrap_or(usize::MAX)) {
                let subject = Subject { message: &one.message, redelivered: one.redelivered };
                if browser.selector.as_ref().is_none_or(|selector| selects(selector, &*fields, subject)) {
                    let delivery = Delivery {
                        message: &one.message,
                        held: None,
                        redelivered: one.redelivered,
                        delivery_count: None,
                        stream_offset: None,
                        opens_group: false,
                    };
                    output::show(&self.shared, &browser.subscribed, &delivery);
                }
            }
            browser.left = browser.left.saturating_sub(page.messages.len() as u64);
            browser.place = page.next;
            if page.next.is_none() {
                break;
            }
        }
        let escapes = self.dialect().escapes(self.version);
        let mut frame = browser.subscribed.head.clone();
        let destination = browser.subscribed.destination.as_deref().unwrap_or_default();
        codec::put_header_escaped(b"destination", destination, escapes, &mut frame);
        frame.extend_from_slice(b"message-id:0\nbrowser:end\n\n");
        codec::put_end(self.options().trailing_lf, &mut frame);
        self.shared.output().encode(|out| out.extend_from_slice(&frame));
        true
    }
}
