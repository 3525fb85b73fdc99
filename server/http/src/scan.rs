//! Finds where a run of characters of a target ends, 16 bytes at a time.

use wide::u8x16;

/// The end of a path: the first byte that is `?` or cannot be in a target.
#[inline]
pub(super) fn path_end(bytes: &[u8], from: usize) -> usize {
    find(bytes, from, |block| target(block) & !is(block, b'?'))
}

/// The end of a target: the first byte that cannot be in one.
#[inline]
pub(super) fn target_end(bytes: &[u8], from: usize) -> usize {
    find(bytes, from, target)
}

/// The end of the letters, digits, hyphens and dots that most hosts consist of.
#[inline]
pub(super) fn usual_host_end(bytes: &[u8], from: usize) -> usize {
    find(bytes, from, |block| {
        alphanumeric(block) | within(block, b'-', b'.')
    })
}

/// The end of the letters, digits and hyphens that most names of fields consist of.
#[inline(always)]
pub(super) fn usual_name_end(bytes: &[u8], from: usize) -> usize {
    find(bytes, from, |block| alphanumeric(block) | is(block, b'-'))
}

/// The end of what a field value may contain.
#[inline(always)]
pub(super) fn text_end(bytes: &[u8], from: usize) -> usize {
    find(bytes, from, |block| {
        within(block, b' ', 0xff) & !is(block, 0x7f) | is(block, b'\t')
    })
}

/// `tchar` (RFC 9110, section 5.6.2).
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What a field value may contain: HTAB, SP, visible characters and obs-text (RFC 9110, section 5.5).
pub(super) const fn is_text_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// What may stand in a request target.
///
/// In a query that is more than RFC 3986 allows: browsers send `{ } | \ ^ [ ]` and the backtick there
/// unencoded. The query is opaque here, so nothing can be read in two ways.
pub(super) fn is_target_byte(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~') && !matches!(byte, b'"' | b'#' | b'<' | b'>')
}

const BLOCK: usize = 16;

/// The first byte from `from` on that is not in `class`, which sets all bits of those that are, or the
/// end. NUL must not be in it.
#[inline(always)]
fn find(bytes: &[u8], from: usize, class: impl Fn(u8x16) -> u8x16) -> usize {
    let outside = |block: &[u8; BLOCK]| class(u8x16::new(*block)).to_bitmask() ^ 0xffff;
    let mut at = from;
    while let Some(block) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let outside = outside(block);
        if outside != 0 {
            return at + outside.trailing_zeros() as usize;
        }
        at += BLOCK;
    }
    // The last block overlaps with bytes that were looked at before; a short one is filled up with NUL.
    let mut short = [0; BLOCK];
    let (block, seen) = match bytes.last_chunk() {
        Some(block) => (block, at - (bytes.len() - BLOCK)),
        None => {
            short[..bytes.len()].copy_from_slice(bytes);
            (&short, at)
        }
    };
    let outside = outside(block) >> seen;
    if outside == 0 {
        bytes.len()
    } else {
        at + outside.trailing_zeros() as usize
    }
}

// The same classes for 16 bytes: all bits of a byte that is in one, none of a byte that is not.

#[inline(always)]
fn target(block: u8x16) -> u8x16 {
    // `"` and `#` are neighbours.
    let others = within(block, b'"', b'#') | is(block, b'<') | is(block, b'>');
    within(block, b'!', b'~') & !others
}

#[inline(always)]
fn alphanumeric(block: u8x16) -> u8x16 {
    within(block | u8x16::splat(0x20), b'a', b'z') | within(block, b'0', b'9')
}

#[inline(always)]
fn within(block: u8x16, first: u8, last: u8) -> u8x16 {
    let offset = block - u8x16::splat(first);
    offset.simd_eq(offset.min(u8x16::splat(last - first)))
}

#[inline(always)]
fn is(block: u8x16, byte: u8) -> u8x16 {
    block.simd_eq(u8x16::splat(byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn find_bytewise(bytes: &[u8], from: usize, class: impl Fn(u8) -> bool) -> usize {
        let rest = &bytes[from..];
        from + rest
            .iter()
            .position(|byte| !class(*byte))
            .unwrap_or(rest.len())
    }

    /// Checks every scan against the slow way.
    fn check(bytes: &[u8], from: usize) {
        let end = |class: fn(u8) -> bool| find_bytewise(bytes, from, class);
        let in_target = |byte| matches!(byte, b'!'..=b'~') && !b"\"#<>".contains(&byte);
        assert_eq!(
            target_end(bytes, from),
            find_bytewise(bytes, from, in_target)
        );
        assert_eq!(
            path_end(bytes, from),
            find_bytewise(bytes, from, |byte| in_target(byte) && byte != b'?')
        );
        assert_eq!(
            usual_host_end(bytes, from),
            end(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
        );
        assert_eq!(
            usual_name_end(bytes, from),
            end(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        );
        assert_eq!(text_end(bytes, from), end(is_text_byte));
    }

    #[test]
    fn every_byte_is_in_the_class_it_belongs_to() {
        for byte in 0..=255 {
            for len in [1, 15, 16, 17, 40] {
                let mut bytes = vec![b'a'; len];
                bytes[len - 1] = byte;
                check(&bytes, 0);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(9110), ..ProptestConfig::default() })]

        #[test]
        fn runs_end_where_they_end_byte_by_byte(
            bytes in prop::collection::vec(prop_oneof![8 => b'a'..=b'z', 1 => any::<u8>()], 0..80),
            from in 0usize..80,
        ) {
            check(&bytes, from.min(bytes.len()));
        }
    }
}
