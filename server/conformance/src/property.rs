//! What holds for any bytes at all.

use barewire_service::service::Service;

use crate::driver::{Driver, Memory};

/// Checks that `requests` get the same replies whole, byte by byte, and cut at `cuts`, and that these are
/// not longer than so many requests can account for. `server` makes a new server for each run.
///
/// # Panics
///
/// If they do not.
pub fn same_replies_however_split<S: Service>(
    server: impl Fn() -> Memory<S>,
    requests: &[u8],
    mut cuts: Vec<usize>,
) {
    /// The shortest request that leaves the connection open takes this many bytes.
    const REQUEST_BYTES_MIN: usize = "GET / HTTP/1.1\r\nHost:\r\n\r\n".len();

    let answer = |segments: &[&[u8]]| server().exchange(segments).unwrap_or_default();
    let whole = answer(&[requests]);
    let replies_max = requests.len() / REQUEST_BYTES_MIN + 1;
    assert!(
        whole.len() <= replies_max * S::REPLY_BYTES_MIN,
        "{} bytes of replies",
        whole.len()
    );

    cuts.sort_unstable();
    let mut segments = Vec::new();
    let mut rest = requests;
    for cut in cuts {
        let (segment, tail) = rest.split_at(cut - (requests.len() - rest.len()));
        segments.push(segment);
        rest = tail;
    }
    segments.push(rest);
    let bytes: Vec<_> = requests.chunks(1).collect();
    for segments in [segments, bytes] {
        let split = answer(&segments);
        assert!(
            split == whole,
            "\"{}\"\nwhole: \"{}\"\nsplit: \"{}\"\nin {:?}",
            requests.escape_ascii(),
            whole.escape_ascii(),
            split.escape_ascii(),
            segments
                .iter()
                .map(|segment| segment.len())
                .collect::<Vec<_>>()
        );
    }
}
