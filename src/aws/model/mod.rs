//! What the services' models say: operations, the shapes of what they take and answer, and their errors.
//!
//! The tables are generated; this file is what they are made of. The Query protocol is decoded and rendered by
//! them. JSON needs them only for the names of operations and for codes of errors.

pub mod sns;
pub mod sqs;

/// A service.
#[derive(Debug)]
pub struct Model {
    /// Its name in ARNs and signatures.
    pub name: &'static str,
    /// Version of its interface.
    pub version: &'static str,
    /// Namespace of its answers in XML.
    pub xml_namespace: &'static str,
    /// By name.
    pub operations: &'static [Operation],
    /// By name.
    pub errors: &'static [ErrorShape],
}

impl Model {
    /// The operation of that name.
    pub fn operation(&self, name: &str) -> Option<&'static Operation> {
        let found = self.operations.binary_search_by(|operation| operation.name.cmp(name));
        found.ok().map(|at| &self.operations[at])
    }

    /// The error whose shape has that name.
    pub fn error(&self, name: &str) -> Option<&'static ErrorShape> {
        let found = self.errors.binary_search_by(|error| error.name.cmp(name));
        found.ok().map(|at| &self.errors[at])
    }
}

/// One operation.
#[derive(Debug)]
pub struct Operation {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub input: &'static Shape,
    /// What it answers, if it is more than that it is done.
    pub output: Option<&'static Shape>,
    /// The element around what it answers in XML.
    pub wrapper: &'static str,
}

/// An error of the model.
#[derive(Debug)]
pub struct ErrorShape {
    /// Name of its shape: the code in JSON.
    pub name: &'static str,
    /// The code in XML.
    pub code: &'static str,
    /// Status of the answer.
    pub status: u16,
}

/// The shape of a value.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are what the model calls them")]
pub enum Shape {
    /// Members by name.
    Structure(&'static [Member]),
    /// Values of one shape; `item` is each one's name on the wire.
    List { item: &'static str, shape: &'static Shape, is_flat: bool },
    /// Values by texts; `key` and `value` are their names on the wire.
    Map { key: &'static str, value: &'static str, shape: &'static Shape, is_flat: bool },
    /// A text.
    Text,
    /// A whole number.
    Integer,
    /// A number.
    Float,
    /// True or false.
    Boolean,
    /// Octets, in base64 in every protocol.
    Blob,
    /// A time: seconds since 1970 in JSON, ISO 8601 in XML.
    Timestamp,
}

/// A member of a structure.
#[derive(Debug)]
pub struct Member {
    /// Its name in the model, and in JSON.
    pub name: &'static str,
    /// Its name in Query and XML.
    pub wire: &'static str,
    /// What it is.
    pub shape: &'static Shape,
    /// Its items stand beside other members, without an element around them.
    pub is_flat: bool,
    /// It has to be there.
    pub is_required: bool,
}

static TEXT: Shape = Shape::Text;
static INTEGER: Shape = Shape::Integer;
static BOOLEAN: Shape = Shape::Boolean;
static BLOB: Shape = Shape::Blob;
static TIMESTAMP: Shape = Shape::Timestamp;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_and_errors_are_found_by_name() {
        for model in [&sqs::MODEL, &sns::MODEL] {
            for operation in model.operations {
                assert!(std::ptr::eq(model.operation(operation.name).unwrap(), operation));
            }
            for error in model.errors {
                assert!(std::ptr::eq(model.error(error.name).unwrap(), error));
            }
            assert!(model.operation("Nothing").is_none());
        }
        assert_eq!((sqs::MODEL.operations.len(), sns::MODEL.operations.len()), (23, 42));
    }
}
