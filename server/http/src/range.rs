//! Which part of a representation a request is about (RFC 9110, section 14).

use std::ops::Range;

/// What `Range` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Everything: there is no `Range`, or none that has to be understood.
    Whole,
    /// A part.
    Some(Range<u64>),
    /// No byte that is there: 416.
    Unsatisfiable,
}

/// `Range` is ignored if it has more ranges than this.
const RANGES_MAX: usize = 16;
/// Ranges with a gap of at most so many bytes are joined: the head of a part would take more (RFC 9110, section 15.3.7.2).
const GAP_MAX: u64 = 80;

/// The part of a representation with `length` bytes that the value of `Range` names. Several ranges are one if they can be
/// joined without much between them, else the whole.
pub fn parse(value: &[u8], length: u64) -> Part {
    if length == 0 {
        return Part::Whole;
    }
    parse_set(value, length).unwrap_or(Part::Whole)
}

/// `None`: the value is malformed, of another unit, or asks for more than is served.
fn parse_set(value: &[u8], length: u64) -> Option<Part> {
    let value = std::str::from_utf8(value).ok()?;
    let (unit, set) = value.split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut ranges = [const { 0..0 }; RANGES_MAX];
    let mut count = 0;
    let mut is_empty = true;
    for spec in set.split(',').map(|spec| spec.trim_matches([' ', '\t'])) {
        if spec.is_empty() {
            continue;
        }
        is_empty = false;
        if let Some(range) = parse_one(spec, length)? {
            *ranges.get_mut(count)? = range;
            count += 1;
        }
    }
    if is_empty {
        return None;
    }
    match join(&mut ranges[..count]) {
        None if count == 0 => Some(Part::Unsatisfiable),
        joined => joined.map(Part::Some),
    }
}

/// One range of the set. `None`: it is malformed; `Some(None)`: none of its bytes are there.
fn parse_one(spec: &str, length: u64) -> Option<Option<Range<u64>>> {
    let (first, last) = spec.split_once('-')?;
    if first.is_empty() {
        let suffix = number(last)?.min(length);
        return Some((suffix > 0).then_some(length - suffix..length));
    }
    let first = number(first)?;
    let end = match last {
        "" => length,
        _ => {
            let last = number(last)?;
            if last < first {
                return None;
            }
            last.saturating_add(1).min(length)
        }
    };
    Some((first < length).then_some(first..end))
}

/// A number of any length; the largest value stands for all beyond it.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

/// All ranges as one, if there is not much between them.
fn join(ranges: &mut [Range<u64>]) -> Option<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let (first, others) = ranges.split_first()?;
    others.iter().try_fold(first.clone(), |joined, next| {
        let is_near = next.start <= joined.end.saturating_add(GAP_MAX);
        is_near.then_some(joined.start..joined.end.max(next.end))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(value: &str) -> Part {
        parse(value.as_bytes(), 10_000)
    }

    #[test]
    fn the_examples_of_rfc_9110_section_14_1_2() {
        assert_eq!(part("bytes=0-499"), Part::Some(0..500));
        assert_eq!(part("bytes=500-999"), Part::Some(500..1000));
        assert_eq!(part("bytes=-500"), Part::Some(9500..10_000));
        assert_eq!(part("bytes=9500-"), Part::Some(9500..10_000));
        assert_eq!(
            part("bytes=0-0,-1"),
            Part::Whole,
            "joined, that would be everything"
        );
        assert_eq!(part("bytes= 0-999, 4500-5499, -1000"), Part::Whole);
        assert_eq!(part("bytes=500-600,601-999"), Part::Some(500..1000));
        assert_eq!(part("bytes=500-700,601-999"), Part::Some(500..1000));
    }

    #[test]
    fn ends_are_cut_and_beginnings_are_not() {
        assert_eq!(part("bytes=0-"), Part::Some(0..10_000));
        assert_eq!(
            part("bytes=9999-99999999999999999999999999"),
            Part::Some(9999..10_000)
        );
        assert_eq!(part("bytes=-99999"), Part::Some(0..10_000));
        for unsatisfiable in [
            "bytes=10000-",
            "bytes=10000-10001",
            "bytes=-0",
            "bytes=99999999999999999999-",
        ] {
            assert_eq!(part(unsatisfiable), Part::Unsatisfiable, "{unsatisfiable}");
        }
        assert_eq!(
            part("bytes=10000-,1-2"),
            Part::Some(1..3),
            "one that is there is enough"
        );
        assert_eq!(parse(b"bytes=0-", 0), Part::Whole);
    }

    #[test]
    fn near_ranges_are_joined_in_any_order() {
        assert_eq!(part("BYTES=5-9,,0-1, 90-110"), Part::Some(0..111));
        assert_eq!(part("bytes=0-9,91-92"), Part::Whole);
        assert_eq!(part("bytes=0-9,90-92"), Part::Some(0..93));
        assert_eq!(
            part(&format!("bytes={}", "0-1,".repeat(16))),
            Part::Some(0..2)
        );
        assert_eq!(part(&format!("bytes={}", "0-1,".repeat(17))), Part::Whole);
    }

    #[test]
    fn what_is_malformed_is_ignored() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=1",
            "bytes=2-1",
            "bytes=+1-2",
            "bytes=1-+2",
            "bytes=1 -2",
            "bytes=0-1;2-3",
            "lines=1-2",
            "bytes=0x1-2",
            "bytes=--1",
            "bytes=é-",
        ] {
            assert_eq!(part(value), Part::Whole, "{value}");
        }
    }
}
