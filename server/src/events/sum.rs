//! An exact sum of `f64`s: rounded once, when it is read, never when something is added.
//!
//! A finite `f64` is an integer of 53 bits times a power of two between 2^-1074 and 2^971, so every
//! sum of them is an integer multiple of 2^-1074: a fixed-point number of some 2,100 bits (a
//! *superaccumulator*; Kulisch 1971, and in this carry-save form Neal, arXiv:1505.05571). It is kept
//! as signed limbs of 64 bits whose weights are only 32 bits apart:
//!
//! ```text
//!            limb i+2          limb i+1          limb i            weight 2^(32 i)
//!        ├─ 32 bits ─┤     ├─ 32 bits ─┤     ├─ 32 bits ─┤
//!   headroom + a piece   headroom + a piece   headroom + a piece   of one value's 53 bits, shifted
//! ```
//!
//! Adding a value is three additions to neighbouring limbs, with no carry between them until the
//! headroom is used up; merging two sums adds limb by limb. Integer addition is associative, so the
//! result depends neither on the order of the values nor on how they were spread over the cores.
//!
//! Why not a crate: those that are exact (`xsum`) keep the limbs to themselves, but here other cores
//! must read them while their owner adds, and sums must merge.

/// Number of limbs. The highest bit a value can have is 2^(2045 + 53) in units of 2^-1074; 2^64 such
/// values reach limb 67, and `LIMB_OFFSET` shifts that to 69. The rest fills the last cache line.
pub const LIMBS: usize = 72;

/// Values that may be added before [`ExactSum::carry`] has to run.
///
/// Each leaves at most 2^32 in a limb, so a limb stays below 2^52 + 2^32 in between, and
/// [`MERGE_MAX`] sums can be added up limb by limb without overflow.
pub const CARRY_PERIOD: u64 = 1 << 20;

/// Sums that may be merged into one, beside one that is carried.
pub const MERGE_MAX: usize = 1 << 10;

const LIMB_BITS: u32 = 32;

/// Where limb 0 is stored: such that the limbs of all values between 2^-62 and 2^130, that is of
/// practically every value there is, share one cache line of eight.
const LIMB_OFFSET: usize = 2;

const MANTISSA_BITS: u32 = f64::MANTISSA_DIGITS - 1;
const EXPONENT_MASK: u64 = 0x7ff;

/// One value as what has to be added to three neighbouring limbs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pieces {
    /// Index of the lowest limb.
    pub first: usize,
    /// What to add to the limbs `first`, `first + 1`, `first + 2`.
    pub limbs: [i64; 3],
}

impl Pieces {
    /// Splits a finite value.
    #[inline]
    pub fn of(value: f64) -> Self {
        debug_assert!(value.is_finite());
        let bits = value.to_bits();
        let exponent = (bits >> MANTISSA_BITS) & EXPONENT_MASK;
        let fraction = bits & ((1 << MANTISSA_BITS) - 1);
        // A subnormal has no implicit bit, and the exponent of the smallest normal number.
        let mantissa = fraction | u64::from(exponent != 0) << MANTISSA_BITS;
        let position = exponent.saturating_sub(1) as usize;

        let shifted = u128::from(mantissa) << (position as u32 % LIMB_BITS);
        let negative = -i64::from(value.is_sign_negative());
        let piece = |index: u32| {
            let magnitude = (shifted >> (index * LIMB_BITS)) as u32;
            (i64::from(magnitude) ^ negative) - negative
        };
        Pieces {
            first: position / LIMB_BITS as usize + LIMB_OFFSET,
            limbs: [piece(0), piece(1), piece(2)],
        }
    }
}

/// The exact sum of up to 2^64 finite values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExactSum {
    limbs: [i64; LIMBS],
}

impl ExactSum {
    /// The sum of nothing.
    pub const ZERO: Self = ExactSum { limbs: [0; LIMBS] };

    /// A sum from what [`ExactSum::limbs`] gave.
    pub fn from_limbs(limbs: [i64; LIMBS]) -> Self {
        ExactSum { limbs }
    }

    /// The limbs, lowest first. Two equal sums have equal limbs after [`ExactSum::carry`].
    pub fn limbs(&self) -> &[i64; LIMBS] {
        &self.limbs
    }

    /// Adds one finite value. At most [`CARRY_PERIOD`] times between two calls of [`ExactSum::carry`].
    #[inline]
    pub fn add(&mut self, value: f64) {
        let pieces = Pieces::of(value);
        for (limb, piece) in self.limbs[pieces.first..].iter_mut().zip(pieces.limbs) {
            *limb += piece;
        }
    }

    /// Adds some limbs of another sum, from the one at index `first` on.
    #[inline]
    pub fn merge(&mut self, first: usize, limbs: &[i64]) {
        for (limb, other) in self.limbs[first..].iter_mut().zip(limbs) {
            *limb += other;
        }
    }

    /// Moves what exceeds a limb's 32 bits to the next, without changing the sum.
    ///
    /// Leaves every limb in -2^31 .. 2^31, so that a negative sum does not reach up to the top.
    pub fn carry(&mut self) {
        let mut carry = 0;
        for limb in &mut self.limbs {
            let total = *limb + carry;
            carry = (total + (1 << (LIMB_BITS - 1))) >> LIMB_BITS;
            *limb = total - (carry << LIMB_BITS);
        }
        debug_assert_eq!(carry, 0, "more than 2^64 values");
    }

    /// The nearest `f64`, ties to even.
    ///
    /// Zero is `+0.0` whatever it was made of. A sum beyond the range of `f64` is given as the nearest
    /// finite number, `f64::MAX` or `f64::MIN`: it will be seen by people who cannot read an infinity.
    pub fn to_f64(&self) -> f64 {
        self.divided_by(1)
    }

    /// The nearest `f64` to the exact quotient of this sum and `count`, ties to even; `0.0` if
    /// `count` is zero. Zero and out-of-range results as in [`ExactSum::to_f64`].
    pub fn divided_by(&self, count: u64) -> f64 {
        let (negative, magnitude) = self.sign_and_magnitude();
        let Some(top) = magnitude.iter().rposition(|&limb| limb != 0) else {
            return 0.0;
        };
        if count == 0 {
            return 0.0;
        }

        // Schoolbook division, from the top: the quotient's first non-zero digit and the next one
        // hold at least 65 significant bits, which is all that rounding needs besides the question
        // whether anything is left.
        let mut remainder = 0;
        let mut next_digit = |index: isize| {
            let digit = usize::try_from(index).map_or(0, |index| magnitude[index]);
            let dividend = u128::from(remainder) << 64 | u128::from(digit);
            remainder = (dividend % u128::from(count)) as u64;
            (dividend / u128::from(count)) as u64
        };
        let mut index = top as isize;
        let mut high = next_digit(index);
        if high == 0 {
            index -= 1;
            high = next_digit(index);
        }
        let low = next_digit(index - 1);
        let below = usize::try_from(index - 1).unwrap_or(0);
        let inexact = remainder != 0 || magnitude[..below].iter().any(|&limb| limb != 0);

        let zeros = high.leading_zeros();
        let quotient = (u128::from(high) << 64 | u128::from(low)) << zeros;
        round(
            negative,
            (quotient >> 64) as u64,
            (index as i64) * 64 - i64::from(zeros) - (LIMB_OFFSET as i64) * i64::from(LIMB_BITS),
            inexact || quotient as u64 != 0,
        )
    }

    /// Whether the sum is negative, and its absolute value in limbs of 64 bits, lowest first.
    fn sign_and_magnitude(&self) -> (bool, [u64; LIMBS / 2]) {
        fn digits(limbs: impl Iterator<Item = i64>) -> (i64, [u64; LIMBS / 2]) {
            let mut carry = 0;
            let mut digits = [0; LIMBS / 2];
            for (index, limb) in limbs.enumerate() {
                let total = limb + carry;
                carry = total >> LIMB_BITS;
                digits[index / 2] |= u64::from(total as u32) << (index as u32 % 2 * LIMB_BITS);
            }
            (carry, digits)
        }
        match digits(self.limbs.iter().copied()) {
            (0, digits) => (false, digits),
            _ => (true, digits(self.limbs.iter().map(|limb| -limb)).1),
        }
    }
}

/// Rounds ±`mantissa` · 2^`exponent` · 2^-1074 to the nearest `f64`, ties to even.
///
/// The mantissa's top bit is set. `inexact`: the number is greater than that by less than one unit
/// of the mantissa's last place.
fn round(negative: bool, mantissa: u64, exponent: i64, inexact: bool) -> f64 {
    debug_assert!(mantissa.leading_zeros() == 0);
    // A normal number keeps 53 bits, a smaller one those that are at least 2^-1074.
    let kept = (i64::from(u64::BITS) + exponent).min(i64::from(f64::MANTISSA_DIGITS));
    if kept < 0 {
        return 0.0;
    }
    let dropped = u64::BITS - kept as u32;
    let wide = u128::from(mantissa);
    let (integer, rest) = ((wide >> dropped) as u64, wide & ((1 << dropped) - 1));
    let half = 1 << (dropped - 1);
    let up = rest > half || rest == half && (inexact || integer % 2 == 1);

    // The implicit bit of `integer` adds one to the exponent's field, as does a mantissa that
    // rounding carried over; a subnormal has neither.
    let shift = (exponent + i64::from(dropped)) as u64;
    let bits = (shift << MANTISSA_BITS) + integer + u64::from(up);
    let magnitude = f64::from_bits(bits.min(f64::MAX.to_bits()));
    if negative && magnitude != 0.0 {
        -magnitude
    } else {
        magnitude
    }
}
