//! The Huffman code of HPACK (RFC 7541, section 5.2 and appendix B).
//!
//! The code is canonical: it follows from the lengths of its codes. Decoding looks up 12 bits at once, which begin with
//! one symbol of at most 12 bits or, in most cases, with two of 5 or 6. Longer codes, of characters that usual fields
//! do not contain, are searched by their length.

use super::DecodeError;

/// The length in bits of the code of each byte, and of the end of the string.
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

const SYMBOLS: usize = 257;
/// EOS, which a string must not contain.
const END: u16 = 256;
const BITS_MAX: usize = 30;

/// The symbols by length and number of their codes, and where each length begins.
struct Canonical {
    symbols: [u16; SYMBOLS],
    /// The first code of each length.
    first: [u32; BITS_MAX + 1],
    /// How many codes there are of each length, and of shorter ones.
    count: [u16; BITS_MAX + 1],
    before: [u16; BITS_MAX + 1],
    codes: [u32; SYMBOLS],
}

static CANONICAL: Canonical = canonical();

const fn canonical() -> Canonical {
    let mut table = Canonical {
        symbols: [0; SYMBOLS],
        first: [0; BITS_MAX + 1],
        count: [0; BITS_MAX + 1],
        before: [0; BITS_MAX + 1],
        codes: [0; SYMBOLS],
    };
    let (mut code, mut at, mut bits) = (0, 0, 1);
    while bits <= BITS_MAX {
        code <<= 1;
        table.first[bits] = code;
        table.before[bits] = at as u16;
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == bits {
                table.symbols[at] = symbol as u16;
                table.codes[symbol] = code;
                code += 1;
                at += 1;
            }
            symbol += 1;
        }
        table.count[bits] = at as u16 - table.before[bits];
        bits += 1;
    }
    table
}

const AHEAD_BITS: u32 = 12;

/// The symbols that 12 bits begin with: one or two.
#[derive(Clone, Copy)]
struct Ahead {
    symbols: [u8; 2],
    /// Bits of the first symbol; 0 if its code is longer than 12 bits.
    first_bits: u8,
    /// Bits of both symbols, or of the only one.
    bits: u8,
}

static AHEAD: [Ahead; 1 << AHEAD_BITS] = ahead();

const fn ahead() -> [Ahead; 1 << AHEAD_BITS] {
    const NONE: Ahead = Ahead {
        symbols: [0; 2],
        first_bits: 0,
        bits: 0,
    };
    let table = canonical();
    let mut ahead = [NONE; 1 << AHEAD_BITS];
    let mut word = 0;
    while word < ahead.len() {
        let (first, first_bits) = short(&table, word as u32, AHEAD_BITS);
        if first_bits > 0 {
            let left = AHEAD_BITS - first_bits;
            let rest = word as u32 & ((1 << left) - 1);
            let (second, second_bits) = short(&table, rest, left);
            ahead[word] = Ahead {
                symbols: [first, second],
                first_bits: first_bits as u8,
                bits: (first_bits + second_bits) as u8,
            };
        }
        word += 1;
    }
    ahead
}

/// The symbol that the `available` lower bits of `word` begin with, and its bits; 0 bits if there is none.
const fn short(table: &Canonical, word: u32, available: u32) -> (u8, u32) {
    let mut bits = 5;
    while bits <= available {
        let code = word >> (available - bits);
        let offset = code.wrapping_sub(table.first[bits as usize]);
        if offset < table.count[bits as usize] as u32 {
            let symbol = table.symbols[table.before[bits as usize] as usize + offset as usize];
            return (symbol as u8, bits);
        }
        bits += 1;
    }
    (0, 0)
}

/// Decodes `text` into the front of `out`. Returns the length of the result in bytes.
///
/// # Errors
///
/// If `text` contains EOS, if its padding is not of less than eight ones, or if the result is longer than `out` without
/// its last two bytes.
pub(super) fn decode(text: &[u8], out: &mut [u8]) -> Result<usize, DecodeError> {
    // The next bits, to the left, and how many of them there are.
    let (mut bits, mut count) = (0u64, 0u32);
    let (mut rest, mut len) = (text, 0);
    loop {
        if count <= 32 {
            match rest.split_first_chunk::<4>() {
                Some((word, tail)) => {
                    bits |= u64::from(u32::from_be_bytes(*word)) << (32 - count);
                    count += 32;
                    rest = tail;
                }
                None => {
                    for byte in std::mem::take(&mut rest) {
                        bits |= u64::from(*byte) << (56 - count);
                        count += 8;
                    }
                }
            }
        }
        // Behind the last bit follow ones, as if there were padding.
        let padded = bits | u64::MAX.checked_shr(count).unwrap_or(0);
        let ahead = &AHEAD[(padded >> (64 - AHEAD_BITS)) as usize];
        let space = out.get_mut(len..len + 2).ok_or(DecodeError::TooLong)?;
        if u32::from(ahead.bits) <= count && ahead.bits > 0 {
            space.copy_from_slice(&ahead.symbols);
            len += 1 + usize::from(ahead.bits != ahead.first_bits);
            bits <<= ahead.bits;
            count -= u32::from(ahead.bits);
        } else if u32::from(ahead.first_bits) <= count && ahead.first_bits > 0 {
            space[0] = ahead.symbols[0];
            len += 1;
            bits <<= ahead.first_bits;
            count -= u32::from(ahead.first_bits);
        } else if count < 8 {
            return match padded {
                u64::MAX => Ok(len),
                _ => Err(DecodeError::Malformed),
            };
        } else {
            let (symbol, symbol_bits) = long(bits, count).ok_or(DecodeError::Malformed)?;
            space[0] = symbol;
            len += 1;
            bits <<= symbol_bits;
            count -= symbol_bits;
        }
    }
}

/// The symbol with a long code that the `count` upper bits of `bits` begin with.
#[cold]
fn long(bits: u64, count: u32) -> Option<(u8, u32)> {
    let table = &CANONICAL;
    (AHEAD_BITS + 1..=count.min(BITS_MAX as u32)).find_map(|len| {
        let code = (bits >> (64 - len)) as u32;
        let offset = code.wrapping_sub(table.first[len as usize]);
        if offset >= u32::from(table.count[len as usize]) {
            return None;
        }
        let symbol = table.symbols[usize::from(table.before[len as usize]) + offset as usize];
        (symbol != END).then_some((symbol as u8, len))
    })
}

/// How long `text` is when it is encoded, in bytes.
pub(super) fn encoded_len(text: &[u8]) -> usize {
    let bits: usize = text
        .iter()
        .map(|byte| usize::from(LENGTHS[usize::from(*byte)]))
        .sum();
    bits.div_ceil(8)
}

/// Appends `text`, encoded.
pub(super) fn encode(text: &[u8], out: &mut Vec<u8>) {
    let (mut bits, mut count) = (0u64, 0u32);
    for byte in text {
        let symbol = usize::from(*byte);
        bits = bits << LENGTHS[symbol] | u64::from(CANONICAL.codes[symbol]);
        count += u32::from(LENGTHS[symbol]);
        while count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    if count > 0 {
        out.push(((bits << (8 - count)) as u8) | (0xff >> count));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn decoded(text: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let mut out = vec![0; text.len() * 2 + 2];
        let len = decode(text, &mut out)?;
        out.truncate(len);
        Ok(out)
    }

    /// RFC 7541, appendix C.4 and C.6.
    #[test]
    fn examples_of_the_rfc() {
        for (text, coded) in [
            ("www.example.com", "f1e3c2e5f23a6ba0ab90f4ff"),
            ("no-cache", "a8eb10649cbf"),
            ("custom-key", "25a849e95ba97d7f"),
            ("custom-value", "25a849e95bb8e8b4bf"),
            ("302", "6402"),
            ("private", "aec3771a4b"),
            (
                "https://www.example.com",
                "9d29ad171863c78f0b97c8e9ae82ae43d3",
            ),
            ("", ""),
        ] {
            let mut encoded = Vec::new();
            encode(text.as_bytes(), &mut encoded);
            let hex: String = encoded.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, coded);
            assert_eq!(encoded_len(text.as_bytes()), encoded.len());
            assert_eq!(decoded(&encoded).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn padding_is_less_than_a_byte_of_ones() {
        // `0` is five zeros.
        assert_eq!(decoded(&[0b0000_0111]).unwrap(), b"0");
        assert!(decoded(&[0b0000_0110]).is_err(), "a zero");
        assert!(decoded(&[0b0000_0111, 0xff]).is_err(), "more than a byte");
        assert!(decoded(&[0xff; 4]).is_err(), "the end of the string");
        assert!(decoded(&[0xff]).is_err(), "a whole byte");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut out = [0; 4];
        assert_eq!(decode(&[0, 0], &mut out), Err(DecodeError::TooLong));
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(7541), ..ProptestConfig::default() })]

        #[test]
        fn what_is_encoded_is_decoded(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut encoded = Vec::new();
            encode(&text, &mut encoded);
            let mut out = vec![0; text.len() + 2];
            prop_assert_eq!(decode(&encoded, &mut out), Ok(text.len()));
            prop_assert_eq!(&out[..text.len()], &text[..]);
        }
    }
}
