//! Tags of queues.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    attributes::note,
    queue::{Target, Text},
};
use crate::{
    aws::{
        call::{Call, Step},
        error::Error,
    },
    broker::{
        access::Access,
        queue::properties::Properties,
        turn::Turn,
        value::{Table, Value},
    },
};

/// Tags of a queue at most.
const TAGS_COUNT_MAX: usize = 50;
/// Characters of a tag's name, and of its value.
const NAME_CHARS_MAX: usize = 128;
const VALUE_CHARS_MAX: usize = 256;
/// The beginning of the names that are not for users.
const RESERVED_PREFIX: &str = "aws:";

/// Tags by name.
pub(super) type Tags = BTreeMap<String, String>;

/// Adds tags, or refuses them because they would be too many.
pub(super) fn add(tags: Tags, properties: &mut Properties, queue: &str) -> Result<(), Error> {
    if tags.is_empty() {
        return Ok(());
    }
    let mut table = match properties.notes.get(note::TAGS) {
        Some(Value::Table(table)) => table.clone(),
        _ => Table::new(),
    };
    for (name, value) in tags {
        check_one(&name, &value)?;
        table.set(name, Value::text(value));
    }
    if table.len() > TAGS_COUNT_MAX {
        let message = format!("Too many tags added for queue {queue}.");
        return Err(Error::sqs("InvalidParameterValueException", message));
    }
    properties.notes.set(note::TAGS, Value::Table(table));
    Ok(())
}

fn check_one(name: &str, value: &str) -> Result<(), Error> {
    let refuse = |message: String| Err(Error::sqs("InvalidParameterValueException", message));
    if !(1..=NAME_CHARS_MAX).contains(&name.chars().count()) {
        return refuse(format!("Tag keys must be between 1 and {NAME_CHARS_MAX} characters in length."));
    }
    if value.chars().count() > VALUE_CHARS_MAX {
        return refuse(format!("Tag values must be between 0 and {VALUE_CHARS_MAX} characters in length."));
    }
    if name.to_ascii_lowercase().starts_with(RESERVED_PREFIX) {
        return refuse(format!("Tag keys cannot start with the reserved prefix {RESERVED_PREFIX}."));
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TagQueue<'a> {
    #[serde(borrow)]
    queue_url: Option<Text<'a>>,
    tags: Option<Tags>,
}

/// TagQueue
pub(super) fn tag_queue(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: TagQueue<'_> = input.parse()?;
    let target = Target::find(call, turn, request.queue_url.as_deref(), Access::Configure)?;
    let tags = call.required(request.tags.filter(|tags| !tags.is_empty()), "Tags")?;
    let name = target.queue.name.clone();
    let is_added = |properties: &mut Properties| {
        let before = properties.clone();
        add(tags, properties, &name).inspect_err(|_| *properties = before)
    };
    target.vhost.alter_queue(&target.queue, is_added, turn)?;
    call.reply_done()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UntagQueue<'a> {
    #[serde(borrow)]
    queue_url: Option<Text<'a>>,
    tag_keys: Option<Vec<String>>,
}

/// UntagQueue
pub(super) fn untag_queue(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: UntagQueue<'_> = input.parse()?;
    let target = Target::find(call, turn, request.queue_url.as_deref(), Access::Configure)?;
    let keys = call.required(request.tag_keys, "TagKeys")?;
    target.vhost.alter_queue(
        &target.queue,
        |properties| {
            let Some(Value::Table(table)) = properties.notes.get(note::TAGS) else { return };
            let mut table = table.clone();
            keys.iter().for_each(|key| _ = table.remove(key));
            if table.is_empty() {
                properties.notes.remove(note::TAGS);
            } else {
                properties.notes.set(note::TAGS, Value::Table(table));
            }
        },
        turn,
    );
    call.reply_done()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListQueueTags<'a> {
    #[serde(borrow)]
    queue_url: Option<Text<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: Tags,
}

/// ListQueueTags
pub(super) fn list_queue_tags(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: ListQueueTags<'_> = input.parse()?;
    let target = Target::find_any(call, turn, request.queue_url.as_deref())?;
    let mut tags = Tags::new();
    if let Some(Value::Table(table)) = target.properties.notes.get(note::TAGS) {
        tags.extend(
            table.iter().map(|(name, value)| (name.to_owned(), value.as_text().unwrap_or_default().to_owned())),
        );
    }
    call.reply(&Listed { tags })
}
