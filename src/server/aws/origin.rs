//! Which pages of browsers may call, and what they are told.
//!
//! A browser says of each request where its page comes from. Without a check any page could call a broker on the machine
//! of whoever looks at it, which lets in everybody from there: some requests need no leave, and do their harm unanswered.

use hyper::{HeaderMap, Method, StatusCode, header};

/// What a request says of the page behind it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// There is none.
    None,
    /// One that may call.
    Welcome,
    /// One that may not.
    Foreign,
}

/// Whether a page is behind a request, and may be.
pub(super) fn page(headers: &HeaderMap, listed: &[String], is_loopback: bool) -> Page {
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or_default();
        return if is_welcome(origin, listed, is_loopback) { Page::Welcome } else { Page::Foreign };
    }
    // Images and links of other pages say no origin.
    let site = headers.get("sec-fetch-site").and_then(|site| site.to_str().ok());
    match site {
        None | Some("none") => Page::None,
        // A page of elsewhere whose name has come to mean this machine calls its own origin, it says.
        Some("same-origin") => {
            let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
            if is_welcome(&format!("http://{host}"), listed, is_loopback) { Page::None } else { Page::Foreign }
        }
        Some(_) if is_loopback && !listed.iter().any(|one| one == "*") => Page::Foreign,
        Some(_) => Page::None,
    }
}

fn is_welcome(origin: &str, listed: &[String], is_loopback: bool) -> bool {
    super::super::web_stomp::is_welcome(origin, listed, is_loopback)
}

/// Whether this asks what a page may send.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Adds what a browser wants to read before it lets its page have an answer.
pub(super) fn allow(request: &HeaderMap, answer: &mut HeaderMap, status: &mut StatusCode, is_preflight: bool) {
    let any = header::HeaderValue::from_static("*");
    answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, any);
    answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, header::HeaderValue::from_static(EXPOSED));
    if is_preflight {
        *status = StatusCode::OK;
        answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, header::HeaderValue::from_static("GET, POST, OPTIONS"));
        let asked = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
        let asked = asked.unwrap_or_else(|| header::HeaderValue::from_static("*"));
        answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked);
        answer.insert(header::ACCESS_CONTROL_MAX_AGE, header::HeaderValue::from_static("172800"));
    }
}

const EXPOSED: &str = "x-amzn-RequestId, x-amzn-query-error, x-amz-request-id, Date";

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn pages_of_elsewhere_may_not_call_over_loopback() {
        assert_eq!(page(&headers(&[]), &[], true), Page::None);
        assert_eq!(page(&headers(&[("origin", "http://localhost:3000")]), &[], true), Page::Welcome);
        assert_eq!(page(&headers(&[("origin", "https://example.com")]), &[], true), Page::Foreign);
        assert_eq!(page(&headers(&[("origin", "https://example.com")]), &[], false), Page::Welcome);
        assert_eq!(page(&headers(&[("sec-fetch-site", "cross-site")]), &[], true), Page::Foreign);
        assert_eq!(page(&headers(&[("sec-fetch-site", "none")]), &[], true), Page::None);
        let own = |host| page(&headers(&[("sec-fetch-site", "same-origin"), ("host", host)]), &[], true);
        assert_eq!(own("localhost:9324"), Page::None);
        assert_eq!(own("rebound.example.com:9324"), Page::Foreign);
        let listed = ["https://example.com".to_owned()];
        assert_eq!(page(&headers(&[("origin", "https://example.com")]), &listed, true), Page::Welcome);
    }
}
