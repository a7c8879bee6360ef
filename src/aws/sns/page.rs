//! Lists in pages: the token of the next page names what the page before ended with.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::arn::invalid;
use crate::aws::error::Error;

/// Items of one page.
pub(super) const ITEMS_MAX: usize = 100;

/// The name behind which a page begins.
pub(super) fn after(token: Option<&str>) -> Result<Option<String>, Error> {
    let Some(token) = token.filter(|token| !token.is_empty()) else { return Ok(None) };
    let name = STANDARD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    name.map(Some).ok_or_else(|| invalid("NextToken Reason: The token is not valid"))
}

/// The first name that can stand behind that one.
pub(super) fn behind(name: Option<String>) -> String {
    name.map(|name| name + "\0").unwrap_or_default()
}

/// A page of items that are ordered by name, from those that follow the token; and the next token.
pub(super) fn cut<T>(mut items: Vec<T>, max: usize, name: impl Fn(&T) -> &str) -> (Vec<T>, Option<String>) {
    if items.len() <= max {
        return (items, None);
    }
    items.truncate(max);
    let token = items.last().map(|last| STANDARD.encode(name(last)));
    (items, token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_without_a_gap() {
        let all = ["a", "b", "c"];
        let page = |token: Option<&str>| {
            let from = behind(after(token).unwrap());
            cut(all.into_iter().filter(|name| *name >= &*from).collect(), 2, |name| name)
        };
        let (first, token) = page(None);
        assert_eq!(first, ["a", "b"]);
        assert_eq!(page(token.as_deref()), (vec!["c"], None));
        assert!(after(Some("%%%")).is_err());
    }
}
