//! Reading and changing the attributes of a queue.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::{
    attributes::{self, Given, NAMES, Place, note},
    queue::{Target, Text},
};
use crate::{
    aws::{
        call::{Call, Step},
        error::Error,
        sns::policy_changed,
    },
    broker::{access::Access, queue::properties::Properties, turn::Turn},
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetQueueAttributes<'a> {
    #[serde(borrow)]
    queue_url: Option<Text<'a>>,
    attribute_names: Option<Vec<String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Attributes {
    #[serde(skip_serializing_if = "Map::is_empty")]
    attributes: Map<String, Json>,
}

/// GetQueueAttributes
pub(super) fn get_queue_attributes(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: GetQueueAttributes<'_> = input.parse()?;
    let target = Target::find_any(call, turn, request.queue_url.as_deref())?;
    let asked = request.attribute_names.unwrap_or_default();
    if let Some(unknown) = asked.iter().find(|name| *name != "All" && !NAMES.contains(&name.as_str())) {
        return Err(attributes::unknown(unknown));
    }
    let wants_all = asked.iter().any(|name| name == "All");
    let wanted = NAMES.iter().filter(|name| wants_all || asked.iter().any(|asked| asked == *name));
    let pairs = wanted.filter_map(|name| Some(((*name).to_owned(), attributes::value(name, call, &target)?.into())));
    call.reply(&Attributes { attributes: pairs.collect() })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SetQueueAttributes<'a> {
    #[serde(borrow)]
    queue_url: Option<Text<'a>>,
    attributes: Option<Given>,
}

/// SetQueueAttributes
pub(super) fn set_queue_attributes(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: SetQueueAttributes<'_> = input.parse()?;
    let target = Target::find(call, turn, request.queue_url.as_deref(), Access::Configure)?;
    let given = call.required(request.attributes, "Attributes")?;
    let place = Place { call, vhost: &target.vhost, name: &target.queue.name, is_fifo: target.is_fifo, is_new: false };
    let looking = Turn::new(turn.broker, turn.now);
    let change = |properties: &mut Properties| {
        let mut after = properties.clone();
        attributes::apply(&given, &mut after, &place, &looking)?;
        after.notes.set(note::MODIFIED, attributes::milliseconds(looking.now));
        *properties = after;
        Ok(())
    };
    target.vhost.alter_queue(&target.queue, change, turn)?;
    if given.contains_key("Policy") {
        policy_changed(&target.vhost, &target.arn(call), turn)?;
    }
    call.reply_done()
}
