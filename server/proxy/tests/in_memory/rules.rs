//! The public cases of RFC 9111, as a table: a request and its response, and whether a later request is answered by it.
//! The crate `http-cache-semantics` says the same, but where its column has a reason.

use std::time::{Duration, UNIX_EPOCH};

use http_cache_semantics::{BeforeRequest, CacheOptions, CachePolicy};

use crate::world::{BEGIN_S, World, message};

/// What becomes of the second request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The stored response answers it.
    Hit,
    /// It is forwarded with a condition, by which the stored response may be validated.
    Validated,
    /// It is forwarded as it is.
    Forwarded,
    /// 504.
    NotCached,
}

use Then::{Forwarded, Hit, NotCached, Validated};

/// Section, what it is about, first request, its response, seconds, second request, what becomes of it, and why the
/// oracle differs if it does. A response has a `Date` of its time unless the row has one; `{N}` stands for the date so
/// many seconds from then. It is a 200 unless its first line says otherwise.
type Row = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
    u64,
    &'static [&'static str],
    Then,
    Option<&'static str>,
);

const ETAG: &str = "ETag: \"a\"";

const ROWS: &[Row] = &[
    // 3: storing.
    (
        "3 max-age",
        &[],
        &["Cache-Control: max-age=60"],
        10,
        &[],
        Hit,
        None,
    ),
    (
        "3 nothing said, no validator",
        &[],
        &[],
        0,
        &[],
        Forwarded,
        None,
    ),
    (
        "3 no-store",
        &[],
        &["Cache-Control: no-store, max-age=60"],
        0,
        &[],
        Forwarded,
        None,
    ),
    (
        "3 no-store in a second line",
        &[],
        &["Cache-Control: max-age=60", "Cache-Control: no-store"],
        0,
        &[],
        Forwarded,
        None,
    ),
    (
        "3 private",
        &[],
        &["Cache-Control: private, max-age=60"],
        0,
        &[],
        Forwarded,
        None,
    ),
    (
        "3 private with a name",
        &[],
        &["Cache-Control: private=\"set-cookie\", max-age=60"],
        0,
        &[],
        Forwarded,
        None,
    ),
    (
        "3 the request says no-store",
        &["Cache-Control: no-store"],
        &["Cache-Control: max-age=60"],
        0,
        &[],
        Forwarded,
        None,
    ),
    (
        "3 must-understand, known status",
        &[],
        &["Cache-Control: must-understand, no-store, max-age=60"],
        0,
        &[],
        Hit,
        Some("does not know must-understand"),
    ),
    (
        "3 must-understand, unknown status",
        &[],
        &["599", "Cache-Control: must-understand, max-age=60"],
        0,
        &[],
        Forwarded,
        None,
    ),
    (
        "3 unknown status, explicit freshness",
        &[],
        &["599", "Cache-Control: max-age=60"],
        0,
        &[],
        Hit,
        Some("stores known statuses only"),
    ),
    (
        "3 a name like a directive",
        &[],
        &["Cache-Control: xno-store, max-age=60"],
        0,
        &[],
        Hit,
        None,
    ),
    (
        "3.3 a part",
        &[],
        &[
            "206",
            "Content-Range: bytes 0-0/9",
            "Cache-Control: max-age=60",
        ],
        0,
        &[],
        Forwarded,
        None,
    ),
    // 3.5: Authorization.
    (
        "3.5 Authorization",
        &["Authorization: x"],
        &["Cache-Control: max-age=60"],
        0,
        &["Authorization: x"],
        Forwarded,
        None,
    ),
    (
        "3.5 public",
        &["Authorization: x"],
        &["Cache-Control: public, max-age=60"],
        0,
        &[],
        Hit,
        None,
    ),
    (
        "3.5 s-maxage",
        &["Authorization: x"],
        &["Cache-Control: s-maxage=60"],
        0,
        &["Authorization: y"],
        Hit,
        None,
    ),
    (
        "3.5 must-revalidate",
        &["Authorization: x"],
        &["Cache-Control: must-revalidate, max-age=60"],
        0,
        &[],
        Hit,
        None,
    ),
    (
        "3.5 of the second request",
        &[],
        &["Cache-Control: max-age=60"],
        0,
        &["Authorization: x"],
        Hit,
        None,
    ),
    // 4: reuse.
    (
        "4.1 Vary, the same",
        &["Accept: a"],
        &["Vary: Accept", "Cache-Control: max-age=60"],
        0,
        &["Accept: a"],
        Hit,
        None,
    ),
    (
        "4.1 Vary, another",
        &["Accept: a"],
        &["Vary: accept", "Cache-Control: max-age=60"],
        0,
        &["Accept: b"],
        Forwarded,
        None,
    ),
    (
        "4.1 Vary, none",
        &["Accept: a"],
        &["Vary: Accept", "Cache-Control: max-age=60"],
        0,
        &[],
        Forwarded,
        None,
    ),
    (
        "4.1 Vary, none both times",
        &[],
        &["Vary: Accept", "Cache-Control: max-age=60"],
        0,
        &[],
        Hit,
        None,
    ),
    (
        "4.1 Vary, two names",
        &["Accept: a", "X: 1"],
        &["Vary: Accept, X", "Cache-Control: max-age=60"],
        0,
        &["Accept: a", "X: 2"],
        Forwarded,
        None,
    ),
    (
        "4.1 Vary, two lines",
        &["Accept: a", "X: 1"],
        &["Vary: Accept", "Vary: X", "Cache-Control: max-age=60"],
        0,
        &["Accept: a", "X: 2"],
        Forwarded,
        None,
    ),
    (
        "4.1 Vary: *",
        &[],
        &["Vary: *", "Cache-Control: max-age=60"],
        0,
        &[],
        Forwarded,
        None,
    ),
    (
        "4.1 Vary by the client",
        &[],
        &["Vary: X-Forwarded-For", "Cache-Control: max-age=60"],
        0,
        &[],
        Forwarded,
        Some("does not know what this proxy adds"),
    ),
    // 4.2: freshness.
    (
        "4.2 until max-age",
        &[],
        &["Cache-Control: max-age=60", ETAG],
        59,
        &[],
        Hit,
        None,
    ),
    (
        "4.2 from max-age on",
        &[],
        &["Cache-Control: max-age=60", ETAG],
        60,
        &[],
        Validated,
        None,
    ),
    (
        "4.2 stale without validator",
        &[],
        &["Cache-Control: max-age=60"],
        61,
        &[],
        Forwarded,
        None,
    ),
    (
        "4.2.1 s-maxage goes before max-age",
        &[],
        &["Cache-Control: max-age=1, s-maxage=60"],
        30,
        &[],
        Hit,
        None,
    ),
    (
        "4.2.1 also if it is shorter",
        &[],
        &["Cache-Control: s-maxage=1, max-age=60", ETAG],
        30,
        &[],
        Validated,
        None,
    ),
    (
        "4.2.1 max-age goes before Expires",
        &[],
        &["Cache-Control: max-age=1", "Expires: {60}", ETAG],
        30,
        &[],
        Validated,
        None,
    ),
    ("4.2.1 Expires", &[], &["Expires: {60}"], 59, &[], Hit, None),
    (
        "4.2.1 Expires over",
        &[],
        &["Expires: {60}", ETAG],
        60,
        &[],
        Validated,
        None,
    ),
    (
        "4.2.1 Expires by the origin's clock",
        &[],
        &["Date: {1000}", "Expires: {1060}"],
        30,
        &[],
        Hit,
        None,
    ),
    (
        "4.2.1 the lower of two max-age",
        &[],
        &["Cache-Control: max-age=60, max-age=1", ETAG],
        30,
        &[],
        Validated,
        Some("takes the last, or the first"),
    ),
    (
        "4.2.1 max-age in quotation marks",
        &[],
        &["Cache-Control: max-age=\"60\""],
        30,
        &[],
        Hit,
        None,
    ),
    (
        "4.2.1 malformed max-age",
        &[],
        &["Cache-Control: max-age=6x", ETAG],
        0,
        &[],
        Validated,
        None,
    ),
    (
        "4.2.1 max-age beyond all bounds",
        &[],
        &["Cache-Control: max-age=99999999999999"],
        1000,
        &[],
        Hit,
        None,
    ),
    (
        "4.2.2 a tenth of the time since the change",
        &[],
        &["Last-Modified: {-1000}"],
        99,
        &[],
        Hit,
        None,
    ),
    (
        "4.2.2 and no longer",
        &[],
        &["Last-Modified: {-1000}"],
        101,
        &[],
        Validated,
        None,
    ),
    (
        "4.2.2 at most a day",
        &[],
        &["Last-Modified: {-100000000}"],
        86_401,
        &[],
        Validated,
        Some("knows no greatest time"),
    ),
    (
        "4.2.2 not for a session",
        &["Cookie: s=1"],
        &["Last-Modified: {-1000}"],
        1,
        &[],
        Validated,
        Some("does not look at cookies"),
    ),
    (
        "4.2.2 not for every status",
        &[],
        &["302", "Location: /x", "Last-Modified: {-1000}"],
        1,
        &[],
        Forwarded,
        None,
    ),
    (
        "4.2.2 404",
        &[],
        &["404", "Last-Modified: {-1000}"],
        1,
        &[],
        Hit,
        None,
    ),
    (
        "4.2.2 301",
        &[],
        &["301", "Location: /x", "Last-Modified: {-1000}"],
        1,
        &[],
        Hit,
        None,
    ),
    (
        "4.2.2 302 that says how long",
        &[],
        &["302", "Location: /x", "Cache-Control: max-age=60"],
        1,
        &[],
        Hit,
        None,
    ),
    (
        "4.2.3 Age",
        &[],
        &["Cache-Control: max-age=60", "Age: 50", ETAG],
        11,
        &[],
        Validated,
        None,
    ),
    (
        "4.2.3 an old Date",
        &[],
        &["Cache-Control: max-age=60", "Date: {-50}", ETAG],
        11,
        &[],
        Validated,
        Some("trusts no Date but its own"),
    ),
    (
        "4.2.4 must-revalidate",
        &[],
        &["Cache-Control: max-age=60, must-revalidate", ETAG],
        61,
        &["Cache-Control: max-stale"],
        Validated,
        None,
    ),
    (
        "4.2.4 proxy-revalidate",
        &[],
        &["Cache-Control: max-age=60, proxy-revalidate", ETAG],
        61,
        &["Cache-Control: max-stale"],
        Validated,
        Some("overlooks it"),
    ),
    (
        "4.2.4 s-maxage",
        &[],
        &["Cache-Control: s-maxage=60", ETAG],
        61,
        &["Cache-Control: max-stale"],
        Validated,
        Some("overlooks that it includes proxy-revalidate"),
    ),
    // 5.2.1: directives of requests.
    (
        "5.2.1.1 max-age",
        &[],
        &["Cache-Control: max-age=60", ETAG],
        30,
        &["Cache-Control: max-age=10"],
        Validated,
        None,
    ),
    (
        "5.2.1.1 max-age that is enough",
        &[],
        &["Cache-Control: max-age=60"],
        30,
        &["Cache-Control: max-age=40"],
        Hit,
        None,
    ),
    (
        "5.2.1.2 max-stale",
        &[],
        &["Cache-Control: max-age=60", ETAG],
        70,
        &["Cache-Control: max-stale=20"],
        Hit,
        None,
    ),
    (
        "5.2.1.2 max-stale that is too short",
        &[],
        &["Cache-Control: max-age=60", ETAG],
        90,
        &["Cache-Control: max-stale=20"],
        Validated,
        None,
    ),
    (
        "5.2.1.2 max-stale without end",
        &[],
        &["Cache-Control: max-age=60", ETAG],
        9000,
        &["Cache-Control: max-stale"],
        Hit,
        None,
    ),
    (
        "5.2.1.3 min-fresh",
        &[],
        &["Cache-Control: max-age=60", ETAG],
        30,
        &["Cache-Control: min-fresh=40"],
        Validated,
        None,
    ),
    (
        "5.2.1.3 min-fresh that there is",
        &[],
        &["Cache-Control: max-age=60"],
        30,
        &["Cache-Control: min-fresh=20"],
        Hit,
        None,
    ),
    (
        "5.2.1.4 no-cache",
        &[],
        &["Cache-Control: max-age=60", ETAG],
        0,
        &["Cache-Control: no-cache"],
        Validated,
        None,
    ),
    (
        "5.2.1.5 no-store",
        &[],
        &["Cache-Control: max-age=60"],
        0,
        &["Cache-Control: no-store"],
        Hit,
        None,
    ),
    (
        "5.2.1.7 only-if-cached",
        &[],
        &["Cache-Control: max-age=60"],
        30,
        &["Cache-Control: only-if-cached"],
        Hit,
        None,
    ),
    (
        "5.2.1.7 only-if-cached and stale",
        &[],
        &["Cache-Control: max-age=60"],
        61,
        &["Cache-Control: only-if-cached"],
        NotCached,
        Some("knows only-if-cached not"),
    ),
    // 5.2.2: directives of responses.
    (
        "5.2.2.4 no-cache",
        &[],
        &["Cache-Control: no-cache, max-age=60", ETAG],
        0,
        &[],
        Validated,
        None,
    ),
    (
        "5.2.2.4 no-cache with a name",
        &[],
        &["Cache-Control: no-cache=\"x\", max-age=60", ETAG],
        0,
        &[],
        Validated,
        None,
    ),
    (
        "5.2.2.9 public alone",
        &[],
        &["Cache-Control: public", ETAG],
        0,
        &[],
        Validated,
        None,
    ),
    (
        "5.4 Pragma",
        &[],
        &["Cache-Control: max-age=60", ETAG],
        0,
        &["Pragma: no-cache"],
        Validated,
        None,
    ),
    (
        "5.4 Pragma beside Cache-Control",
        &[],
        &["Cache-Control: max-age=60"],
        1,
        &["Pragma: no-cache", "Cache-Control: max-age=9"],
        Hit,
        Some("heeds Pragma all the same"),
    ),
    (
        "5.3 Expires that is no date",
        &[],
        &["Expires: 0", ETAG],
        0,
        &[],
        Validated,
        None,
    ),
    (
        "7.3 Set-Cookie",
        &[],
        &["Set-Cookie: a=1", "Cache-Control: max-age=60"],
        0,
        &[],
        Forwarded,
        None,
    ),
    // RFC 5861.
    (
        "5861-3 stale-while-revalidate",
        &[],
        &["Cache-Control: max-age=60, stale-while-revalidate=60", ETAG],
        90,
        &[],
        Hit,
        Some("knows it as a stale response"),
    ),
    (
        "5861-3 no longer",
        &[],
        &["Cache-Control: max-age=60, stale-while-revalidate=60", ETAG],
        121,
        &[],
        Validated,
        None,
    ),
    (
        "5861-3 but for must-revalidate",
        &[],
        &[
            "Cache-Control: max-age=60, must-revalidate, stale-while-revalidate=60",
            ETAG,
        ],
        90,
        &[],
        Validated,
        None,
    ),
    // RFC 9110.
    (
        "9110-13.1.1 If-Match is for the origin",
        &[],
        &["Cache-Control: max-age=60", ETAG],
        0,
        &["If-Match: \"a\""],
        Forwarded,
        Some("leaves that to its user"),
    ),
    (
        "9110-14.2 a part of what is fresh",
        &[],
        &["Cache-Control: max-age=60", ETAG],
        0,
        &["Range: bytes=0-0"],
        Hit,
        None,
    ),
    (
        "9110-14.2 a part of what is stale is asked of the origin, which is not asked to validate",
        &[],
        &["Cache-Control: max-age=60", ETAG],
        61,
        &["Range: bytes=0-0"],
        Forwarded,
        Some("validates"),
    ),
];

#[test]
fn every_row_holds() {
    let mut wrong = Vec::new();
    for row @ (name, ..) in ROWS {
        let (_, _, _, _, _, wanted, differs) = row;
        let found = in_proxy(row);
        if found != *wanted {
            wrong.push(format!("{name}: {found:?}, not {wanted:?}"));
        }
        let oracle = of_oracle(row);
        let is_same = oracle == *wanted;
        if is_same == differs.is_some() {
            wrong.push(format!(
                "{name}: http-cache-semantics says {oracle:?} (expected to differ: {differs:?})"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The status and the field lines of a row's response.
fn response_of(row: &Row, date: impl Fn(i64) -> String) -> (u16, Vec<String>) {
    let (_, _, lines, ..) = row;
    let is_status = |line: &&&str| !line.contains(':');
    let status = lines
        .iter()
        .find(is_status)
        .map_or(200, |line| line.parse().unwrap());
    let fields = lines.iter().filter(|line| !is_status(line));
    let mut fields: Vec<_> = fields
        .map(|line| match line.split_once('{') {
            None => (*line).to_owned(),
            Some((name, rest)) => {
                let seconds = rest.trim_end_matches('}').parse().unwrap();
                name.to_owned() + &date(seconds)
            }
        })
        .collect();
    if !fields.iter().any(|line| line.starts_with("Date")) {
        fields.push(format!("Date: {}", date(0)));
    }
    (status, fields)
}

fn in_proxy(row: &Row) -> Then {
    let (_, first, _, after_s, second, ..) = row;
    let get = |fields: &[&str]| message("GET /x HTTP/1.1\r\nHost: a", fields, "");
    let mut world = World::new("");
    let (status, fields) = response_of(row, |seconds| world.date(seconds));
    world.forward(&get(first), |_, _| {
        let fields: Vec<_> = fields.iter().map(|line| &**line).collect();
        let first_line = format!("HTTP/1.1 {status} X\r\nContent-Length: 1");
        message(&first_line, &fields, "x")
    });
    world.pass_s(*after_s);
    let client = world.client(&get(second));
    match world.got(client, false) {
        Some(response) if response.status == 504 => NotCached,
        Some(_) => Hit,
        None => {
            let (_, request) = world.asked_once();
            let is_conditional =
                request.contains("If-None-Match") || request.contains("If-Modified-Since");
            match is_conditional {
                true => Validated,
                false => Forwarded,
            }
        }
    }
}

fn of_oracle(row: &Row) -> Then {
    let (_, first, _, after_s, second, ..) = row;
    let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(BEGIN_S + seconds);
    let request = |lines: &[&str]| {
        let mut request = http::Request::get("http://a/x");
        for (name, value) in lines.iter().filter_map(|line| line.split_once(": ")) {
            request = request.header(name, value);
        }
        request.body(()).unwrap()
    };
    let (status, fields) = response_of(row, |seconds| {
        httpdate::fmt_http_date(
            at(0)
                .checked_add(Duration::from_secs(0))
                .map(|now| match seconds < 0 {
                    true => now - Duration::from_secs(seconds.unsigned_abs()),
                    false => now + Duration::from_secs(seconds.unsigned_abs()),
                })
                .unwrap(),
        )
    });
    let mut response = http::Response::builder().status(status);
    for (name, value) in fields.iter().filter_map(|line| line.split_once(": ")) {
        response = response.header(name, value);
    }
    let response = response.body(()).unwrap();
    let policy =
        CachePolicy::new_options(&request(first), &response, at(0), CacheOptions::default());
    if !policy.is_storable() {
        return Forwarded;
    }
    match policy.before_request(&request(second), at(*after_s)) {
        BeforeRequest::Fresh(_) => Hit,
        BeforeRequest::Stale { request, matches } => {
            let headers = &request.headers;
            let is_conditional =
                headers.contains_key("if-none-match") || headers.contains_key("if-modified-since");
            match matches && is_conditional {
                true => Validated,
                false => Forwarded,
            }
        }
    }
}
