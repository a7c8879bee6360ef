//! The methods of an open channel other than those of the message path: channels themselves,
//! exchanges, queues, bindings, confirm and transaction modes.

use std::sync::Arc;

use super::{
    channel::{Channel, Confirms, Mode, Transaction},
    codec::method::{self, AMQPClass, access, basic, channel, confirm, exchange, queue, tx},
    publish::DEFAULT_EXCHANGE,
    reply::{Code, Failure},
    session::Session,
};
use crate::{
    broker::{
        access::Access,
        exchange::{Exchange, Kind, Target},
        queue::{Queue, properties::Properties as QueueProperties},
        topology::{DeclareExchange, DeclareQueue},
        turn::Turn,
        value::Table,
        vhost::Vhost,
    },
    protocol::settles::Leaving,
};

const CHANNEL_OPEN: (u16, u16) = (20, 10);
const CHANNEL_CLOSE: (u16, u16) = (20, 40);
const CHANNEL_CLOSE_OK: (u16, u16) = (20, 41);

impl Session {
    pub(super) fn handle_unopened(&mut self, number: u16, id: (u16, u16), payload: &[u8]) -> Result<(), Failure> {
        if id == CHANNEL_CLOSE_OK {
            // Both sides closed at the same time.
            return Ok(());
        }
        if id != CHANNEL_OPEN {
            if let Err(error) = method::decode(payload) {
                return Err(super::session::decode_failure(&error));
            }
            return Err(Failure::connection(Code::ChannelError, "expected 'channel.open'").at(id));
        }
        let max = usize::from(self.channel_max);
        if max != 0 && self.channels.len() >= max {
            return Err(Failure::connection(
                Code::NotAllowed,
                format!("number of channels opened ({max}) has reached the negotiated channel_max ({max})"),
            ));
        }
        self.check_channel_limits()?;
        self.channels.insert(number, Box::default());
        let mut output = self.shared.output();
        output.open_channel(number);
        let ok = AMQPClass::Channel(channel::AMQPMethod::OpenOk(channel::OpenOk {}));
        output.encode(|out| method::encode(number, &ok, out));
        Ok(())
    }

    fn check_channel_limits(&self) -> Result<(), Failure> {
        let Some(login) = &self.login else { return Ok(()) };
        let limits = self.broker.access.get(&login.user.name).map(|user| user.limits);
        let Some(limit) = limits.and_then(|limits| limits.channels()) else { return Ok(()) };
        let open: usize = self
            .broker
            .connections
            .list()
            .iter()
            .filter(|connection| *connection.info.user == *login.user.name)
            .map(|connection| connection.handle.channels().len())
            .sum();
        if open as u64 >= limit {
            let name = &login.user.name;
            return Err(Failure::connection(
                Code::NotAllowed,
                format!(
                    "number of channels opened for user '{name}' has reached the maximum allowed user limit of ({limit})"
                ),
            ));
        }
        Ok(())
    }

    pub(super) fn handle_closing_channel(&mut self, number: u16, id: (u16, u16)) -> Result<(), Failure> {
        match id {
            CHANNEL_CLOSE_OK => self.forget_channel(number),
            CHANNEL_CLOSE => {
                self.forget_channel(number);
                self.send(number, &AMQPClass::Channel(channel::AMQPMethod::CloseOk(channel::CloseOk {})));
            }
            _ => {}
        }
        Ok(())
    }

    fn forget_channel(&mut self, number: u16) {
        self.channels.remove(&number);
        self.shared.output().close_channel(number);
    }

    /// Ends everything that a channel has at queues.
    pub(super) fn drop_consumers_and_deliveries(&mut self, number: u16, turn: &mut Turn<'_>) {
        let Some(channel) = self.channels.get_mut(&number) else { return };
        let consumers = std::mem::take(&mut channel.consumers);
        // Each queue loses the consumers and gets the deliveries back in one step.
        let ids = consumers.iter().filter(|consumer| !consumer.is_reply).map(|one| (&one.queue, one.id));
        for leaving in Leaving::gather(self.take_deliveries(number), ids) {
            if leaving.apply(turn)
                && let Some(vhost) = &self.vhost
            {
                vhost.remove_queue(&leaving.queue, turn);
            }
        }
        for consumer in consumers {
            if consumer.is_reply {
                self.end_consumer(number, consumer, turn);
            } else {
                self.forget_consumer(number, consumer.source);
            }
        }
        if let Some(queue) = self.channels.get_mut(&number).and_then(|open| open.reply_queue.take())
            && let Some(vhost) = &self.vhost
        {
            vhost.remove_hidden(&queue, turn);
        }
        if let Some(open) = self.shared.output().channel(number) {
            open.ledger = Default::default();
            open.status = Default::default();
        }
    }

    /// Ends a channel without a word.
    pub(super) fn drop_channel(&mut self, number: u16, turn: &mut Turn<'_>) {
        self.drop_consumers_and_deliveries(number, turn);
        self.forget_channel(number);
    }

    pub(super) fn handle_method(
        &mut self,
        number: u16,
        decoded: AMQPClass,
        payload: &[u8],
        turn: &mut Turn<'_>,
    ) -> Result<(), Failure> {
        match decoded {
            AMQPClass::Channel(method) => self.handle_channel(number, method, turn),
            AMQPClass::Access(access::AMQPMethod::Request(_)) => {
                // RabbitMQ answers ticket 1, which nobody reads; the ticket is not in the generated answer.
                let ok = access::AMQPMethod::RequestOk(access::RequestOk {});
                self.reply(number, AMQPClass::Access(ok), turn);
                Ok(())
            }
            AMQPClass::Exchange(method) => self.handle_exchange(number, method, Arguments(payload), turn),
            AMQPClass::Queue(method) => self.handle_queue(number, method, Arguments(payload), turn),
            AMQPClass::Basic(method) => self.handle_basic(number, method, Arguments(payload), turn),
            AMQPClass::Confirm(confirm::AMQPMethod::Select(select)) => self.confirm_select(number, select.nowait, turn),
            AMQPClass::Tx(method) => self.handle_tx(number, &method, turn),
            _ => Err(Failure::connection(Code::CommandInvalid, "unimplemented method")),
        }
    }

    fn handle_channel(&mut self, number: u16, method: channel::AMQPMethod, turn: &mut Turn<'_>) -> Result<(), Failure> {
        use channel::AMQPMethod as M;
        match method {
            M::Open(_) => Err(Failure::connection(Code::ChannelError, "second 'channel.open' seen")),
            M::Close(_) => {
                self.drop_channel(number, turn);
                self.send(number, &AMQPClass::Channel(M::CloseOk(channel::CloseOk {})));
                Ok(())
            }
            M::Flow(flow) if flow.active => {
                self.reply(number, AMQPClass::Channel(M::FlowOk(channel::FlowOk { active: true })), turn);
                Ok(())
            }
            M::Flow(_) => Err(Failure::connection(Code::NotImplemented, "active=false")),
            M::FlowOk(_) => Ok(()),
            _ => Err(Failure::connection(Code::CommandInvalid, "unimplemented method")),
        }
    }

    fn handle_exchange(
        &mut self,
        number: u16,
        method: exchange::AMQPMethod,
        arguments: Arguments<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Failure> {
        use exchange::AMQPMethod as M;
        let (nowait, answer) = match method {
            M::Declare(declare) => {
                self.declare_exchange(&declare, arguments.table(), turn)?;
                (declare.nowait, M::DeclareOk(exchange::DeclareOk {}))
            }
            M::Delete(delete) => {
                let name = stripped(delete.exchange.as_str());
                if !name.is_empty() {
                    self.require(&name, Access::Configure, "exchange")?;
                }
                self.vhost()?.delete_exchange(&name, delete.if_unused, turn)?;
                (delete.nowait, M::DeleteOk(exchange::DeleteOk {}))
            }
            M::Bind(bind) => {
                let key = bind.routing_key.as_str();
                let (source, target) = self.exchange_binding(bind.source.as_str(), bind.destination.as_str(), key)?;
                // RabbitMQ names the source when both are missing.
                let vhost = self.vhost()?;
                vhost.find_exchange(&source)?;
                let target = Target::Exchange(vhost.find_exchange(&target)?);
                vhost.bind(&source, &target, key.as_bytes(), &arguments.table(), turn)?;
                (bind.nowait, M::BindOk(exchange::BindOk {}))
            }
            M::Unbind(unbind) => {
                let key = unbind.routing_key.as_str();
                let (source, target) =
                    self.exchange_binding(unbind.source.as_str(), unbind.destination.as_str(), key)?;
                let vhost = self.vhost()?;
                // What is not there is not bound, so all is well.
                if let (Some(_), Some(target)) = (vhost.exchange(&source), vhost.exchange(&target)) {
                    vhost.unbind(&source, &Target::Exchange(target), key.as_bytes(), &arguments.table(), turn)?;
                }
                (unbind.nowait, M::UnbindOk(exchange::UnbindOk {}))
            }
            _ => return Err(Failure::connection(Code::CommandInvalid, "unimplemented method")),
        };
        if !nowait {
            self.reply(number, AMQPClass::Exchange(answer), turn);
        }
        Ok(())
    }

    fn declare_exchange(
        &mut self,
        declare: &exchange::Declare,
        arguments: Table,
        turn: &mut Turn<'_>,
    ) -> Result<(), Failure> {
        let name = stripped(declare.exchange.as_str());
        let vhost = self.vhost()?;
        if declare.passive {
            if name.is_empty() {
                return Err(crate::broker::error::Error::DefaultExchange.into());
            }
            vhost.find_exchange(&name)?;
            return Ok(());
        }
        if name.is_empty() {
            return Err(crate::broker::error::Error::DefaultExchange.into());
        }
        // RabbitMQ looks at the type before it asks for permission.
        Kind::parse(declare.kind.as_str(), &arguments).map_err(crate::broker::error::Error::from)?;
        self.require(&name, Access::Configure, "exchange")?;
        if let Some(alternate) = arguments.get("alternate-exchange").and_then(|value| value.as_text()) {
            self.require(&name, Access::Read, "exchange")?;
            self.require(alternate, Access::Write, "exchange")?;
        }
        let wanted = DeclareExchange {
            name: &name,
            kind: declare.kind.as_str(),
            durable: declare.durable,
            auto_delete: declare.auto_delete,
            internal: declare.internal,
            arguments,
        };
        vhost.declare_exchange(&wanted, turn)?;
        Ok(())
    }

    fn exchange_binding(&mut self, source: &str, destination: &str, key: &str) -> Result<(String, String), Failure> {
        let vhost = self.vhost()?;
        let (source, destination) = (stripped(source), stripped(destination));
        if source.is_empty() || destination.is_empty() {
            return Err(crate::broker::error::Error::DefaultExchange.into());
        }
        self.require(&destination, Access::Write, "exchange")?;
        self.require(&source, Access::Read, "exchange")?;
        self.require_readable_topic(&vhost, &source, key)?;
        Ok((source, destination))
    }

    fn handle_queue(
        &mut self,
        number: u16,
        method: queue::AMQPMethod,
        arguments: Arguments<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Failure> {
        use queue::AMQPMethod as M;
        let (nowait, answer) = match method {
            M::Declare(declare) => {
                let (queue, status) = self.declare_queue(number, &declare, arguments.table(), turn)?;
                let ok = queue::DeclareOk {
                    queue: method::short_text(&queue),
                    message_count: status.0,
                    consumer_count: status.1,
                };
                (declare.nowait, M::DeclareOk(ok))
            }
            M::Bind(bind) => {
                let key = bind.routing_key.as_str();
                let exchange = stripped(bind.exchange.as_str());
                let (name, key) = self.queue_binding(number, bind.queue.as_str(), &exchange, key)?;
                // RabbitMQ names the exchange when both are missing.
                let vhost = self.vhost()?;
                vhost.find_exchange(&exchange)?;
                let target = Target::Queue(vhost.find_queue(&name, Some(self.id))?);
                vhost.bind(&exchange, &target, &key, &arguments.table(), turn)?;
                (bind.nowait, M::BindOk(queue::BindOk {}))
            }
            M::Unbind(unbind) => {
                let key = unbind.routing_key.as_str();
                let exchange = stripped(unbind.exchange.as_str());
                let (name, key) = self.queue_binding(number, unbind.queue.as_str(), &exchange, key)?;
                let vhost = self.vhost()?;
                // What is not there is not bound, so all is well.
                if let (Some(source), Some(queue)) = (vhost.exchange(&exchange), vhost.queue(&name)) {
                    let owned = vhost.find_queue(&name, Some(self.id));
                    let target = Target::Queue(queue);
                    let mut bindings = source.bindings().into_iter();
                    if bindings.any(|binding| *binding.key == *key && binding.target == target) {
                        owned?;
                    }
                    vhost.unbind(&exchange, &target, &key, &arguments.table(), turn)?;
                }
                (false, M::UnbindOk(queue::UnbindOk {}))
            }
            M::Purge(purge) => {
                let name = self.queue_name(number, purge.queue.as_str())?;
                self.require(&name, Access::Read, "queue")?;
                let queue = self.vhost()?.find_queue(&name, Some(self.id))?;
                if queue.is_stream() {
                    return Err(not_for_stream(&queue, "queue.purge"));
                }
                let message_count = queue.purge(turn) as u32;
                (purge.nowait, M::PurgeOk(queue::PurgeOk { message_count }))
            }
            M::Delete(delete) => {
                let name = self.queue_name(number, delete.queue.as_str())?;
                self.require(&name, Access::Configure, "queue")?;
                let vhost = self.vhost()?;
                let owned = vhost.queue(&name).filter(|queue| queue.declaration.owner.is_some()).map(|queue| queue.id);
                let count = vhost.delete_queue(&name, delete.if_unused, delete.if_empty, Some(self.id), turn)?;
                if let Some(id) = owned {
                    self.exclusive_queues.remove(&id);
                }
                (delete.nowait, M::DeleteOk(queue::DeleteOk { message_count: count as u32 }))
            }
            _ => return Err(Failure::connection(Code::CommandInvalid, "unimplemented method")),
        };
        if !nowait {
            self.reply(number, AMQPClass::Queue(answer), turn);
        }
        Ok(())
    }

    /// The queue's name, its ready messages and its consumers.
    fn declare_queue(
        &mut self,
        number: u16,
        declare: &queue::Declare,
        arguments: Table,
        turn: &mut Turn<'_>,
    ) -> Result<(Arc<str>, (u32, u32)), Failure> {
        let vhost = self.vhost()?;
        let name = stripped(declare.queue.as_str());
        if name.starts_with(super::publish::REPLY_TO) {
            // Clients ask whether somebody still waits for a reply. The bare name always exists.
            if name == super::publish::REPLY_TO || vhost.hidden(&name).is_some() {
                return Ok((name.as_str().into(), (0, 1)));
            }
            return Err(vhost.find_queue(&name, None).err().map_or_else(
                || Failure::channel(Code::NotFound, format!("no queue '{name}' in vhost '{}'", vhost.name)),
                Failure::from,
            ));
        }
        let queue = if declare.passive {
            let queue = vhost.find_queue(&name, Some(self.id))?;
            turn.wait_for(queue.declared_at());
            queue
        } else {
            if !name.is_empty() {
                self.require(&name, Access::Configure, "queue")?;
            }
            if let Some(exchange) = arguments.get("x-dead-letter-exchange").and_then(|value| value.as_text()) {
                let exchange = if exchange.is_empty() { DEFAULT_EXCHANGE } else { exchange };
                self.require(&name, Access::Read, "queue")?;
                self.require(exchange, Access::Write, "exchange")?;
            }
            let wanted = DeclareQueue {
                name: &name,
                durable: declare.durable,
                exclusive: declare.exclusive,
                auto_delete: declare.auto_delete,
                arguments,
                dead_queue: None,
                properties: QueueProperties::default(),
            };
            let queue = vhost.declare_queue(&wanted, Some(self.id), turn)?;
            if name.is_empty() && self.require(&queue.name, Access::Configure, "queue").is_err() {
                vhost.remove_queue(&queue, turn);
                self.require(&queue.name, Access::Configure, "queue")?;
            }
            queue
        };
        if queue.declaration.owner.is_some() {
            self.exclusive_queues.insert(queue.id, queue.clone());
        }
        if declare.passive {
            queue.touch(turn);
        }
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.last_queue = Some(queue.name.clone());
        }
        let status = queue.status();
        Ok((queue.name.clone(), (status.ready.min(u32::MAX.into()) as u32, status.consumers as u32)))
    }

    fn queue_binding(
        &mut self,
        number: u16,
        queue: &str,
        exchange: &str,
        key: &str,
    ) -> Result<(String, Vec<u8>), Failure> {
        let vhost = self.vhost()?;
        let name = self.queue_name(number, queue)?;
        // Without both names the key is the queue's name, too.
        let key = if queue.is_empty() && key.is_empty() { name.as_bytes().to_vec() } else { key.as_bytes().to_vec() };
        if exchange.is_empty() {
            return Err(crate::broker::error::Error::DefaultExchange.into());
        }
        self.require(&name, Access::Write, "queue")?;
        self.require(exchange, Access::Read, "exchange")?;
        self.require_readable_topic(&vhost, exchange, &String::from_utf8_lossy(&key))?;
        Ok((name, key))
    }

    fn confirm_select(&mut self, number: u16, nowait: bool, turn: &mut Turn<'_>) -> Result<(), Failure> {
        let Some(channel) = self.channels.get_mut(&number) else { return Ok(()) };
        match channel.mode {
            Mode::Transaction(_) => {
                return Err(Failure::channel(Code::PreconditionFailed, "cannot switch from tx to confirm mode"));
            }
            Mode::Confirm(_) => {}
            Mode::Plain => channel.mode = Mode::Confirm(Confirms::default()),
        }
        self.with_status(number, |status| status.is_confirming = true);
        if !nowait {
            self.reply(number, AMQPClass::Confirm(confirm::AMQPMethod::SelectOk(confirm::SelectOk {})), turn);
        }
        Ok(())
    }

    fn handle_tx(&mut self, number: u16, method: &tx::AMQPMethod, turn: &mut Turn<'_>) -> Result<(), Failure> {
        use tx::AMQPMethod as M;
        let Some(channel) = self.channels.get_mut(&number) else { return Ok(()) };
        let answer = match (method, &mut channel.mode) {
            (M::Select(_), Mode::Confirm(_)) => {
                return Err(Failure::channel(Code::PreconditionFailed, "cannot switch from confirm to tx mode"));
            }
            (M::Select(_), mode) => {
                if !matches!(mode, Mode::Transaction(_)) {
                    *mode = Mode::Transaction(Transaction::default());
                }
                self.with_status(number, |status| status.is_transactional = true);
                M::SelectOk(tx::SelectOk {})
            }
            (M::Commit(_), Mode::Transaction(transaction)) => {
                let Transaction { published, settled, .. } = std::mem::take(transaction);
                self.with_status(number, |status| status.uncommitted = 0);
                self.commit(number, published, settled, turn)?;
                M::CommitOk(tx::CommitOk {})
            }
            (M::Rollback(_), Mode::Transaction(transaction)) => {
                let Transaction { settled, .. } = std::mem::take(transaction);
                self.with_status(number, |status| status.uncommitted = 0);
                self.finish_settles(number, settled, false);
                M::RollbackOk(tx::RollbackOk {})
            }
            (M::Commit(_) | M::Rollback(_), _) => {
                return Err(Failure::channel(Code::PreconditionFailed, "channel is not transactional"));
            }
            _ => return Err(Failure::connection(Code::CommandInvalid, "unimplemented method")),
        };
        self.reply(number, AMQPClass::Tx(answer), turn);
        Ok(())
    }

    fn handle_basic(
        &mut self,
        number: u16,
        method: basic::AMQPMethod,
        arguments: Arguments<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Failure> {
        use basic::AMQPMethod as M;
        match method {
            M::Consume(consume) => self.consume(number, &consume, arguments.table(), turn),
            M::Cancel(cancel) => self.cancel(number, cancel.consumer_tag.as_str(), cancel.nowait, turn),
            M::Get(get) => self.get(number, get.queue.as_str(), get.no_ack, turn),
            M::Recover(recover) => self.recover(number, recover.requeue, true, turn),
            M::RecoverAsync(recover) => self.recover(number, recover.requeue, false, turn),
            M::CancelOk(_) => Ok(()),
            _ => Err(Failure::connection(Code::CommandInvalid, "unimplemented method")),
        }
    }

    pub(super) fn vhost(&self) -> Result<Arc<Vhost>, Failure> {
        self.vhost.clone().ok_or_else(|| Failure::connection(Code::InternalError, "no vhost is open"))
    }

    /// The name that a client means: an empty one is that of the queue it declared last.
    pub(super) fn queue_name(&self, number: u16, name: &str) -> Result<String, Failure> {
        if !name.is_empty() {
            return Ok(stripped(name));
        }
        let last = self.channels.get(&number).and_then(|channel| channel.last_queue.as_ref());
        last.map(|name| name.to_string())
            .ok_or_else(|| Failure::channel(Code::NotFound, "no previously declared queue"))
    }

    /// Refuses unless the user may.
    pub(super) fn require(&mut self, name: &str, access: Access, kind: &str) -> Result<(), Failure> {
        let Some(login) = &mut self.login else { return Err(Failure::connection(Code::InternalError, "")) };
        let may = login.checker.as_mut().is_some_and(|checker| checker.check(&self.broker.access, name, access));
        if may {
            return Ok(());
        }
        let vhost = self.vhost.as_ref().map_or("", |vhost| &vhost.name);
        let user = &login.user.name;
        Err(Failure::channel(
            Code::AccessRefused,
            format!("access to {kind} '{name}' in vhost '{vhost}' refused for user '{user}'"),
        ))
    }

    /// Refuses unless the user may use that routing key of a topic exchange.
    pub(super) fn require_topic(&mut self, exchange: &Exchange, key: &[u8], access: Access) -> Result<(), Failure> {
        let Some(login) = &mut self.login else { return Err(Failure::connection(Code::InternalError, "")) };
        let key = String::from_utf8_lossy(key);
        let may = login
            .checker
            .as_mut()
            .is_some_and(|checker| checker.check_topic(&self.broker.access, &exchange.name, &key, access));
        if may {
            return Ok(());
        }
        let vhost = self.vhost.as_ref().map_or("", |vhost| &vhost.name);
        Err(Failure::channel(
            Code::AccessRefused,
            format!(
                "access to topic '{key}' in exchange '{}' in vhost '{vhost}' refused for user '{}'",
                exchange.name, login.user.name
            ),
        ))
    }

    fn require_readable_topic(&mut self, vhost: &Vhost, exchange: &str, key: &str) -> Result<(), Failure> {
        match vhost.exchange(exchange) {
            Some(exchange) if matches!(exchange.declaration.kind.routing(), Kind::Topic) => {
                self.require_topic(&exchange, key.as_bytes(), Access::Read)
            }
            _ => Ok(()),
        }
    }

    /// Changes what listings show of a channel.
    pub(super) fn with_status(&self, number: u16, change: impl FnOnce(&mut crate::broker::connections::ChannelStatus)) {
        if let Some(open) = self.shared.output().channel(number) {
            change(&mut open.status);
        }
    }
}

/// The arguments of a method: decoded from its payload only where they are wanted.
#[derive(Clone, Copy)]
pub(super) struct Arguments<'a>(pub &'a [u8]);

impl Arguments<'_> {
    pub(super) fn table(&self) -> Table {
        Table::decode(method::table(self.0)).unwrap_or_default()
    }
}

/// RabbitMQ takes line ends out of names.
pub(super) fn stripped(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '\r' | '\n')).collect()
}

/// A stream refuses what only a queue can do.
pub(in crate::protocol) fn not_for_stream(queue: &Queue, what: &str) -> Failure {
    let (name, vhost) = (&queue.name, queue.vhost_name());
    let text = format!("{what} not supported by stream queues queue '{name}' in vhost '{vhost}'");
    Failure::connection(Code::NotImplemented, text)
}

impl Channel {
    /// The consumer of that tag.
    pub(super) fn consumer_at(&self, tag: &str) -> Option<usize> {
        self.consumers.iter().position(|consumer| *consumer.tag == *tag)
    }
}
