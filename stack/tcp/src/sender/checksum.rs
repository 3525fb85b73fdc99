//! Checksums (RFC 1071): copying a payload and adding it up in one pass, and adding up what was received.

/// Copies `from` to the beginning of `to`, and returns the ones' complement sum of what was copied
/// (RFC 1071), as big-endian words, folded to 16 bits and not inverted; an odd last byte is padded
/// with a zero behind it.
///
/// # Panics
///
/// If `to` is shorter than `from`.
#[inline]
pub fn copy_and_sum(to: &mut [u8], from: &[u8]) -> u16 {
    let to = &mut to[..from.len()];
    let (words, rest) = from.as_chunks::<8>();
    let (to_words, to_rest) = to.as_chunks_mut::<8>();
    // The halves are summed apart: neither sum overflows below 2^32 words, and the loop needs no carry.
    let (mut low, mut high) = (0_u64, 0_u64);
    for (to, from) in to_words.iter_mut().zip(words) {
        *to = *from;
        let word = u64::from_ne_bytes(*from);
        low += word & 0xffff_ffff;
        high += word >> 32;
    }
    // What is left is copied in pieces of known length: a call of memcpy takes longer than all that is above.
    let (half, rest) = rest.as_chunks::<4>();
    let (to_half, to_rest) = to_rest.as_chunks_mut::<4>();
    if let ([from], [to]) = (half, to_half) {
        *to = *from;
        low += u64::from(u32::from_ne_bytes(*from));
    }
    let last = match (to_rest, rest) {
        ([to], &[a]) => {
            *to = a;
            [a, 0, 0, 0]
        }
        ([to_a, to_b], &[a, b]) => {
            (*to_a, *to_b) = (a, b);
            [a, b, 0, 0]
        }
        ([to_a, to_b, to_c], &[a, b, c]) => {
            (*to_a, *to_b, *to_c) = (a, b, c);
            [a, b, c, 0]
        }
        _ => [0; 4],
    };
    let sum = fold(low + high + u64::from(u32::from_ne_bytes(last)));
    // A sum of byte-swapped words is the byte-swapped sum (RFC 1071, section 2 (B)).
    u16::from_be_bytes(sum.to_ne_bytes())
}

/// The words of `bytes` added up, in the order of memory (RFC 1071, section 2 (B)), to be added to others of even length and
/// folded; an odd last byte is padded with a zero behind it.
#[inline]
pub fn unfolded(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let (mut low, mut high) = (0_u64, 0_u64);
    for word in words {
        let word = u64::from_ne_bytes(*word);
        low += word & 0xffff_ffff;
        high += word >> 32;
    }
    let (half, rest) = rest.as_chunks::<4>();
    if let [half] = half {
        low += u64::from(u32::from_ne_bytes(*half));
    }
    let last = match *rest {
        [a] => [a, 0, 0, 0],
        [a, b] => [a, b, 0, 0],
        [a, b, c] => [a, b, c, 0],
        _ => [0; 4],
    };
    low + high + u64::from(u32::from_ne_bytes(last))
}

/// Ones' complement sum of `bytes`; see [`copy_and_sum`].
#[cfg(test)]
fn sum(bytes: &[u8]) -> u16 {
    copy_and_sum(&mut vec![0; bytes.len()], bytes)
}

/// The sum of two pieces, of which the first has an even length.
#[inline]
pub fn add(first: u16, second: u16) -> u16 {
    fold(u64::from(first) + u64::from(second))
}

/// Folds a sum of words to 16 bits; zero only if all of them are.
#[inline]
pub fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use smoltcp::wire::checksum;

    use super::*;

    #[test]
    fn sums_the_example_of_rfc_1071() {
        assert_eq!(
            sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            0xddf2
        );
        assert_eq!(sum(&[]), 0);
        assert_eq!(sum(&[0xab]), 0xab00);
        assert_eq!(sum(&[0xff; 1536]), 0xffff);
    }

    proptest! {
        #[test]
        fn copies_and_sums_as_the_reference_does(
            bytes in proptest::collection::vec(any::<u8>(), 0..1537)
        ) {
            let mut copy = vec![0; bytes.len()];
            let sum = copy_and_sum(&mut copy, &bytes);
            prop_assert_eq!(sum, checksum::data(&bytes));
            prop_assert_eq!(fold(unfolded(&bytes)).to_be(), sum);
            prop_assert_eq!(copy, bytes);
        }
    }
}
