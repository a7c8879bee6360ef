//! AWS Signature Version 4: reading a request's signature, and whether it is the one that a secret makes.
//!
//! ```text
//! Authorization: AWS4-HMAC-SHA256 Credential=KEY/20261123/REGION/SERVICE/aws4_request, SignedHeaders=host;x-amz-date,
//!                Signature=<64 hex digits>
//! ?X-Amz-Algorithm=..&X-Amz-Credential=..&X-Amz-Date=..&X-Amz-Expires=..&X-Amz-SignedHeaders=..&X-Amz-Signature=..
//! ```
//!
//! Knows nothing of users, services and clocks: whoever calls has found the secret by the key, and says what time it
//! is. Region and service of the scope are what the client signed for, and may be any.

use std::{borrow::Cow, collections::HashMap, fmt::Write as _, hash::BuildHasher};

use hmac::{Hmac, KeyInit, Mac};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use time::{OffsetDateTime, PrimitiveDateTime, macros::format_description};

/// The only algorithm.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// Octets of `20261123T120000Z`.
const BASIC_TIME_BYTES: usize = 16;
/// What stands for the digest of a body that is not signed.
pub const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";
/// Seconds that a presigned request may be good for.
const EXPIRES_SECS_MAX: i64 = 7 * 24 * 3600;

/// A request as it came.
pub struct Request<'a> {
    /// `POST`.
    pub method: &'a str,
    /// Path as it was sent, still encoded.
    pub path: &'a str,
    /// What follows the question mark, still encoded.
    pub query: &'a str,
    /// Values of a header by its name in small letters, joined by commas if there are several.
    pub header: &'a dyn Fn(&str) -> Option<Cow<'a, str>>,
    /// The body.
    pub body: &'a [u8],
}

/// Why a signature is refused. The texts are AWS's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Something of it is missing, or makes no sense.
    #[error("{0}")]
    Incomplete(String),
    /// It is not what the secret makes of the request.
    #[error(
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access \
         Key and signing method. Consult the service documentation for details."
    )]
    Differs,
    /// It was made at another time, or does not say when in its scope.
    #[error("{0}")]
    Time(String),
    /// A presigned request is too old.
    #[error("Request has expired.")]
    Expired,
}

/// A signature as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature<'a> {
    /// The key that it was made with.
    pub access_key: Cow<'a, str>,
    /// Day of the scope, `20261123`.
    pub day: Cow<'a, str>,
    /// Region of the scope.
    pub region: Cow<'a, str>,
    /// Service of the scope.
    pub service: Cow<'a, str>,
    /// `X-Amz-Security-Token`.
    pub token: Option<Cow<'a, str>>,
    signed_headers: Cow<'a, str>,
    signature: Cow<'a, str>,
    /// `20261123T120000Z`.
    time: Cow<'a, str>,
    time_secs: i64,
    /// Seconds that it is good for, of a presigned request.
    expires_secs: Option<i64>,
}

impl<'a> Signature<'a> {
    /// Reads the signature of a request; `None`: it has none.
    pub fn read(request: &Request<'a>) -> Result<Option<Self>, Refused> {
        if let Some(authorization) = (request.header)("authorization") {
            return Self::of_header(request, authorization).map(Some);
        }
        if request.query.contains("X-Amz-") { Self::of_query(request) } else { Ok(None) }
    }

    fn of_header(request: &Request<'a>, authorization: Cow<'a, str>) -> Result<Self, Refused> {
        let (algorithm, rest) = authorization.trim().split_once(' ').unwrap_or((authorization.trim(), ""));
        if algorithm != ALGORITHM {
            return Err(Refused::Incomplete(format!("Unsupported Authorization type: {algorithm}.")));
        }
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for part in rest.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let Some((name, value)) = part.split_once('=') else {
                return Err(Refused::Incomplete(format!(
                    "'{part}' not a valid key=value pair (missing equal-sign) in Authorization header: '{authorization}'."
                )));
            };
            match name {
                "Credential" => credential = Some(value),
                "SignedHeaders" => signed_headers = Some(value),
                "Signature" => signature = Some(value),
                _ => {}
            }
        }
        let time = (request.header)("x-amz-date").or_else(|| (request.header)("date"));
        let (Some(credential), Some(signed_headers), Some(signature), Some(time)) =
            (credential, signed_headers, signature, &time)
        else {
            let mut text = String::new();
            for (is_missing, what) in [
                (credential.is_none(), "Authorization header requires 'Credential' parameter. "),
                (signature.is_none(), "Authorization header requires 'Signature' parameter. "),
                (signed_headers.is_none(), "Authorization header requires 'SignedHeaders' parameter. "),
                (
                    time.is_none(),
                    "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ",
                ),
            ] {
                if is_missing {
                    text.push_str(what);
                }
            }
            let _ = write!(text, "Authorization={authorization}");
            return Err(Refused::Incomplete(text));
        };
        let scope = Scope::parse(credential)?;
        let is_signed = |name: &str| signed_headers.split(';').any(|signed| signed == name);
        // Whoever could add these could change what is asked for.
        for name in ["host", "x-amz-target", "x-amz-date"] {
            let is_there = (request.header)(name).is_some();
            if is_there && !is_signed(name) && !(name == "host" && is_signed(":authority")) {
                let shown = match name {
                    "host" => "'Host' or ':authority'".to_owned(),
                    name => format!("'{name}'"),
                };
                return Err(Refused::Incomplete(format!("{shown} must be a 'SignedHeader' in the AWS Authorization.")));
            }
        }
        let time_secs = parse_time(time).ok_or_else(|| {
            Refused::Incomplete(format!(
                "Date must be in ISO-8601 'basic format'. Got '{time}'. See http://en.wikipedia.org/wiki/ISO_8601"
            ))
        })?;
        Ok(Self {
            access_key: scope.access_key.to_owned().into(),
            day: scope.day.to_owned().into(),
            region: scope.region.to_owned().into(),
            service: scope.service.to_owned().into(),
            token: (request.header)("x-amz-security-token"),
            signed_headers: signed_headers.to_owned().into(),
            signature: signature.to_owned().into(),
            time: time.clone().into_owned().into(),
            time_secs,
            expires_secs: None,
        })
    }

    fn of_query(request: &Request<'a>) -> Result<Option<Self>, Refused> {
        let value = |name: &str| parameters(request.query).find(|(known, _)| known == name).map(|(_, value)| value);
        let Some(algorithm) = value("X-Amz-Algorithm") else { return Ok(None) };
        if algorithm != ALGORITHM {
            return Err(Refused::Incomplete(format!("Unsupported X-Amz-Algorithm: {algorithm}.")));
        }
        let needed = |name: &'static str| {
            value(name).ok_or_else(|| {
                Refused::Incomplete(format!(
                    "AWS query-string parameters must include '{name}'. Re-examine the query-string parameters."
                ))
            })
        };
        let credential = needed("X-Amz-Credential")?;
        let scope = Scope::parse(&credential)?;
        let time = needed("X-Amz-Date")?;
        let time_secs = parse_time(&time).ok_or_else(|| {
            Refused::Incomplete(format!(
                "X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\": '{time}'"
            ))
        })?;
        let expires: Option<i64> = value("X-Amz-Expires").map_or(Some(300), |text| text.parse().ok());
        let expires_secs = expires.filter(|secs| (0..=EXPIRES_SECS_MAX).contains(secs)).ok_or_else(|| {
            Refused::Incomplete("X-Amz-Expires must be a number of seconds, less than a week".to_owned())
        })?;
        let signed_headers = needed("X-Amz-SignedHeaders")?;
        if (request.header)("x-amz-target").is_some() && !signed_headers.split(';').any(|name| name == "x-amz-target") {
            return Err(Refused::Incomplete("'x-amz-target' must be a 'SignedHeader'.".to_owned()));
        }
        Ok(Some(Self {
            access_key: scope.access_key.to_owned().into(),
            day: scope.day.to_owned().into(),
            region: scope.region.to_owned().into(),
            service: scope.service.to_owned().into(),
            token: value("X-Amz-Security-Token"),
            signed_headers,
            signature: needed("X-Amz-Signature")?,
            time,
            time_secs,
            expires_secs: Some(expires_secs),
        }))
    }

    /// Whether it is the one that `secret` makes of the request, and was made about now.
    pub fn verify(
        &self,
        request: &Request<'_>,
        secret: &str,
        keys: &SigningKeys,
        now_secs: i64,
        skew_secs: i64,
    ) -> Result<(), Refused> {
        // Clients write it so already.
        let is_basic = self.time_secs != 0 && self.time.len() == BASIC_TIME_BYTES && self.time.ends_with('Z');
        let made = if is_basic { Cow::Borrowed(&*self.time) } else { basic_time(self.time_secs).into() };
        if self.time_secs == 0 || made[..8] != *self.day {
            return Err(Refused::Time(format!(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{}' != '{}', from '{}'.",
                self.day,
                &made[..8],
                self.time
            )));
        }
        self.check_time(now_secs, skew_secs)?;
        let Some(digest) = self.digest_of_body(request) else { return Err(Refused::Differs) };
        let canonical = self.canonical(request, &digest);
        let mut to_sign = String::with_capacity(192);
        let _ = write!(
            to_sign,
            "{ALGORITHM}\n{}\n{}/{}/{}/aws4_request\n{}",
            made,
            self.day,
            self.region,
            self.service,
            hex(&Sha256::digest(canonical.as_bytes()))
        );
        let key = keys.get(secret, &self.day, &self.region, &self.service);
        let expected = hex(&hmac(&key, to_sign.as_bytes()));
        let is_same: bool = expected.as_bytes().ct_eq(self.signature.as_bytes()).into();
        if is_same { Ok(()) } else { Err(Refused::Differs) }
    }

    fn check_time(&self, now_secs: i64, skew_secs: i64) -> Result<(), Refused> {
        let text = || (basic_time(self.time_secs), basic_time(now_secs), skew_secs / 60);
        if self.time_secs > now_secs + skew_secs {
            let ((made, now, minutes), limit) = (text(), basic_time(now_secs + skew_secs));
            return Err(Refused::Time(format!(
                "Signature not yet current: {made} is still later than {limit} ({now} + {minutes} min.)"
            )));
        }
        match self.expires_secs {
            Some(expires) if now_secs > self.time_secs + expires => Err(Refused::Expired),
            None if self.time_secs < now_secs - skew_secs => {
                let ((made, now, minutes), limit) = (text(), basic_time(now_secs - skew_secs));
                Err(Refused::Time(format!(
                    "Signature expired: {made} is now earlier than {limit} ({now} - {minutes} min.)"
                )))
            }
            _ => Ok(()),
        }
    }

    /// The digest of the body as it was signed; `None`: the body is another one than was signed.
    fn digest_of_body(&self, request: &Request<'_>) -> Option<String> {
        let said = match self.expires_secs {
            Some(_) => parameters(request.query)
                .find(|(name, _)| name == "X-Amz-Content-Sha256")
                .map(|(_, value)| value.into_owned()),
            None => (request.header)("x-amz-content-sha256").map(Cow::into_owned),
        };
        if said.as_deref() == Some(UNSIGNED_PAYLOAD) {
            return said;
        }
        let digest = hex(&Sha256::digest(request.body));
        match said {
            Some(said) if !said.eq_ignore_ascii_case(&digest) => None,
            _ => Some(digest),
        }
    }

    /// The request in the form that is signed.
    fn canonical(&self, request: &Request<'_>, digest: &str) -> String {
        let mut out = String::with_capacity(512);
        out.push_str(request.method);
        out.push('\n');
        path(&mut out, request.path);
        out.push('\n');
        query(&mut out, request.query, self.expires_secs.is_some());
        out.push('\n');
        for name in self.signed_headers.split(';') {
            out.push_str(name);
            out.push(':');
            let value = (request.header)(if name == ":authority" { "host" } else { name });
            // Runs of spaces count as one.
            for (index, word) in value.iter().flat_map(|value| value.split_ascii_whitespace()).enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                out.push_str(word);
            }
            out.push('\n');
        }
        out.push('\n');
        out.push_str(&self.signed_headers);
        out.push('\n');
        out.push_str(digest);
        out
    }
}

/// `KEY/20261123/REGION/SERVICE/aws4_request`.
struct Scope<'a> {
    access_key: &'a str,
    day: &'a str,
    region: &'a str,
    service: &'a str,
}

impl<'a> Scope<'a> {
    fn parse(credential: &'a str) -> Result<Self, Refused> {
        // A key may have slashes in it, say those who make their own.
        let mut parts = credential.rsplitn(5, '/');
        let parts = [parts.next(), parts.next(), parts.next(), parts.next(), parts.next()];
        match parts {
            [Some("aws4_request"), Some(service), Some(region), Some(day), Some(access_key)]
                if !access_key.is_empty() =>
            {
                Ok(Self { access_key, day, region, service })
            }
            _ => Err(Refused::Incomplete(format!(
                "Credential must have at least 5 elements separated by '/', e.g. \
                 <access-key-id>/20261123/us-east-1/sqs/aws4_request, got '{credential}'"
            ))),
        }
    }
}

/// Signing keys that were made before: making one costs more than the rest. Guards the map only.
#[derive(Default)]
pub struct SigningKeys {
    known: Mutex<HashMap<u64, (Scoped, [u8; 32]), foldhash::fast::RandomState>>,
}

/// What a signing key is made of.
type Scoped = (Box<str>, Box<str>, Box<str>, Box<str>);

/// Keys that are kept. Full: forget all.
const SIGNING_KEYS_COUNT_MAX: usize = 1024;

impl SigningKeys {
    fn get(&self, secret: &str, day: &str, region: &str, service: &str) -> [u8; 32] {
        let mut known = self.known.lock();
        let hash = known.hasher().hash_one((secret, day, region, service));
        if let Some((of, key)) = known.get(&hash)
            && (&*of.0, &*of.1, &*of.2, &*of.3) == (secret, day, region, service)
        {
            return *key;
        }
        let key = signing_key(secret, day, region, service);
        if known.len() >= SIGNING_KEYS_COUNT_MAX {
            known.clear();
        }
        known.insert(hash, ((secret.into(), day.into(), region.into(), service.into()), key));
        key
    }
}

impl std::fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKeys")
    }
}

/// The key that signs for one day, region and service.
pub fn signing_key(secret: &str, day: &str, region: &str, service: &str) -> [u8; 32] {
    let key = hmac(format!("AWS4{secret}").as_bytes(), day.as_bytes());
    let key = hmac(&key, region.as_bytes());
    let key = hmac(&key, service.as_bytes());
    hmac(&key, b"aws4_request")
}

fn hmac(key: &[u8], data: &[u8]) -> [u8; 32] {
    // Keys may have any length: it never fails.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    mac.update(data);
    mac.finalize().into_bytes().into()
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)].into());
        out.push(DIGITS[usize::from(byte & 15)].into());
    }
    out
}

/// Parameters of a query, decoded.
fn parameters(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    query.split('&').filter(|part| !part.is_empty()).map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let decode = |text| percent_encoding::percent_decode_str(text).decode_utf8_lossy();
        (decode(name), decode(value))
    })
}

/// A path as it is signed: without dots and doubled slashes, encoded once more.
fn path(out: &mut String, path: &str) {
    if path.is_empty() || path == "/" {
        out.push('/');
        return;
    }
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/').filter(|segment| !segment.is_empty() && *segment != ".") {
        if segment == ".." {
            segments.pop();
        } else {
            segments.push(segment);
        }
    }
    for segment in &segments {
        out.push('/');
        let _ = write!(out, "{}", percent_encoding::utf8_percent_encode(segment, OTHER));
    }
    if segments.is_empty() || path.ends_with('/') {
        out.push('/');
    }
}

/// A query as it is signed: in order, encoded in one way, without the signature.
fn query(out: &mut String, query: &str, is_presigned: bool) {
    if query.is_empty() {
        return;
    }
    let encode = |text: &str| percent_encoding::utf8_percent_encode(text, OTHER).to_string();
    let mut pairs: Vec<(String, String)> = parameters(query)
        .filter(|(name, _)| !(is_presigned && name == "X-Amz-Signature"))
        .map(|(name, value)| (encode(&name), encode(&value)))
        .collect();
    pairs.sort();
    for (index, (name, value)) in pairs.iter().enumerate() {
        let _ = write!(out, "{}{name}={value}", if index > 0 { "&" } else { "" });
    }
}

/// What is not "unreserved" in RFC 3986.
const OTHER: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Seconds since 1970 of `20261123T120000Z`, or of a date in a header of HTTP.
fn parse_time(text: &str) -> Option<i64> {
    let basic = format_description!("[year][month][day]T[hour][minute][second]Z");
    if let Ok(time) = PrimitiveDateTime::parse(text, basic) {
        return Some(time.assume_utc().unix_timestamp());
    }
    let http = OffsetDateTime::parse(text, &time::format_description::well_known::Rfc2822);
    http.ok().map(OffsetDateTime::unix_timestamp)
}

/// `20261123T120000Z`.
pub fn basic_time(secs: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(secs).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let year = time.year().unsigned_abs();
    let date = [(year / 100) as u8, (year % 100) as u8, u8::from(time.month()), time.day()];
    let clock = [time.hour(), time.minute(), time.second()];
    // By hand: every request is signed for such a time, and formatting costs as much as a digest.
    let digits = |number: u8| [number / 10, number % 10].map(|digit| char::from(b'0' + digit % 10));
    let (date, clock) = (date.into_iter().flat_map(digits), clock.into_iter().flat_map(digits));
    date.chain(['T']).chain(clock).chain(['Z']).collect()
}

/// The header `Authorization` of a request that this process sends. `headers` are those to sign, in the order of their
/// names; `path` and `query` are encoded.
pub fn authorization(
    (access_key, secret): (&str, &str),
    (region, service): (&str, &str),
    now_secs: i64,
    (method, path, query): (&str, &str, &str),
    headers: &[(&str, &str)],
    body: &[u8],
    keys: &SigningKeys,
) -> String {
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let time = basic_time(now_secs);
    let day = time[..8].to_owned();
    let signature = Signature {
        access_key: access_key.into(),
        day: day.clone().into(),
        region: region.into(),
        service: service.into(),
        token: None,
        signed_headers: names.clone().into(),
        signature: "".into(),
        time: time.clone().into(),
        time_secs: now_secs,
        expires_secs: None,
    };
    let header = |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| Cow::Borrowed(*value));
    let request = Request { method, path, query, header: &header, body };
    let canonical = signature.canonical(&request, &hex(&Sha256::digest(body)));
    let digest = hex(&Sha256::digest(canonical.as_bytes()));
    let to_sign = format!("{ALGORITHM}\n{time}\n{day}/{region}/{service}/aws4_request\n{digest}");
    let key = keys.get(secret, &day, region, service);
    let signed = hex(&hmac(&key, to_sign.as_bytes()));
    format!(
        "{ALGORITHM} Credential={access_key}/{day}/{region}/{service}/aws4_request, SignedHeaders={names}, \
         Signature={signed}"
    )
}

#[cfg(test)]
mod tests;
