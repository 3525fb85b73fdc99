//! The accumulator against rational numbers of any size.

use num_bigint::BigInt;
use num_rational::BigRational;
use proptest::prelude::*;

use crate::events::sum::{CARRY_PERIOD, ExactSum, LIMBS};

fn sum_of(values: &[f64]) -> ExactSum {
    values.iter().fold(ExactSum::ZERO, |mut sum, &value| {
        sum.add(value);
        sum
    })
}

fn exact(value: f64) -> BigRational {
    BigRational::from_float(value).unwrap()
}

/// Whether `rounded` is what IEEE 754 rounds `exact_value` to (ties to even), except that infinity
/// is replaced by the greatest finite number and zero has no sign.
fn is_nearest(rounded: f64, exact_value: &BigRational) -> bool {
    let distance = |candidate: f64| {
        let difference = exact_value - exact(candidate);
        if difference < exact(0.0) {
            -difference
        } else {
            difference
        }
    };
    let even = rounded.to_bits().is_multiple_of(2);
    let beats = |neighbour: f64| {
        !neighbour.is_finite()
            || distance(rounded) < distance(neighbour)
            || even && distance(rounded) == distance(neighbour)
    };
    let one_zero = rounded != 0.0 || rounded.is_sign_positive();
    one_zero && beats(rounded.next_up()) && beats(rounded.next_down())
}

/// Values that meet: few exponents, signs mixed, the ends of the range among them.
fn values() -> impl Strategy<Value = Vec<f64>> {
    let extreme = prop::sample::select(vec![
        0.0,
        -0.0,
        f64::MAX,
        f64::MIN,
        f64::MIN_POSITIVE,
        -f64::MIN_POSITIVE,
        f64::from_bits(1),
        -f64::from_bits(1),
        f64::MIN_POSITIVE.next_down(),
        f64::EPSILON,
        1e308,
        -1e308,
        9_007_199_254_740_993.0,
    ]);
    let power = (0..0x7ff_u64, any::<bool>()).prop_map(|(exponent, negative)| {
        f64::from_bits(exponent << 52 | u64::from(negative) << 63)
    });
    let near_one = (0x3f0..0x410_u64, any::<u64>())
        .prop_map(|(exponent, bits)| f64::from_bits(exponent << 52 | bits & 0x800f_ffff_ffff_ffff));
    let any_finite = prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL;
    let value = prop_oneof![
        2 => extreme,
        2 => power,
        4 => near_one,
        4 => any_finite,
        2 => (0..2_000_i32).prop_map(|n| f64::from(n - 1_000) / 10.0),
    ];
    // Half of them cancel something.
    prop::collection::vec((value, any::<bool>(), any::<prop::sample::Index>()), 1..40).prop_map(
        |drawn| {
            let mut values: Vec<f64> = Vec::new();
            for (value, cancel, index) in drawn {
                let cancelled = cancel && !values.is_empty();
                values.push(if cancelled {
                    -values[index.index(values.len())]
                } else {
                    value
                });
            }
            values
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn sum_is_the_nearest_float_to_the_exact_sum(values in values()) {
        let expected: BigRational = values.iter().copied().map(exact).sum();
        prop_assert!(is_nearest(sum_of(&values).to_f64(), &expected));
    }

    #[test]
    fn average_is_the_nearest_float_to_the_exact_quotient(
        values in values(),
        count in prop_oneof![1..100_u64, any::<u64>().prop_map(|count| count.max(1)), Just(u64::MAX)],
    ) {
        let sum: BigRational = values.iter().copied().map(exact).sum();
        let expected = sum / BigRational::from_integer(BigInt::from(count));
        prop_assert!(is_nearest(sum_of(&values).divided_by(count), &expected));
    }

    #[test]
    fn neither_order_nor_grouping_nor_carrying_matters(
        values in values(),
        seed in any::<prop::sample::Index>(),
        carry in any::<bool>(),
    ) {
        let mut whole = sum_of(&values);
        let mut rotated = values.clone();
        rotated.rotate_left(seed.index(values.len()));
        rotated.reverse();
        let (some, others) = rotated.split_at(seed.index(values.len()));
        let mut merged = sum_of(some);
        if carry {
            merged.carry();
        }
        merged.merge(0, sum_of(others).limbs());

        prop_assert_eq!(whole.to_f64().to_bits(), merged.to_f64().to_bits());
        whole.carry();
        merged.carry();
        prop_assert_eq!(whole.limbs(), merged.limbs());
        prop_assert!(whole.limbs().iter().all(|limb| (-(1 << 31)..1 << 31).contains(limb)));
    }
}

#[test]
fn rounds_once_and_not_more() {
    let tests: [(&[f64], f64); 10] = [
        (&[0.1; 10], 1.0),
        (&[1e308, 1.0, -1e308], 1.0),
        (&[1e16, 1.0, -1e16], 1.0),
        (&[1.0, f64::EPSILON / 2.0], 1.0),
        (
            &[1.0, f64::EPSILON / 2.0, f64::from_bits(1)],
            1.0 + f64::EPSILON,
        ),
        (
            &[1.0, f64::EPSILON, f64::EPSILON / 2.0],
            1.0 + 2.0 * f64::EPSILON,
        ),
        (
            &[-1.0, -f64::EPSILON / 2.0, -f64::from_bits(1)],
            -1.0 - f64::EPSILON,
        ),
        (&[f64::from_bits(1); 3], f64::from_bits(3)),
        (
            &[f64::MIN_POSITIVE, -f64::from_bits(1)],
            f64::MIN_POSITIVE.next_down(),
        ),
        (&[f64::MAX, f64::MAX, f64::MIN], f64::MAX),
    ];
    for (values, sum) in tests {
        assert_eq!(
            sum_of(values).to_f64().to_bits(),
            sum.to_bits(),
            "{values:?}"
        );
    }
}

#[test]
fn shows_the_nearest_finite_number_and_one_zero() {
    let beyond = sum_of(&[f64::MAX, f64::MAX]);
    assert_eq!(beyond.to_f64(), f64::MAX);
    assert_eq!(beyond.divided_by(2), f64::MAX);
    assert_eq!(sum_of(&[f64::MIN, -1e300]).to_f64(), f64::MIN);

    let least = -f64::from_bits(1);
    for zero in [sum_of(&[-0.0]), sum_of(&[1.0, -1.0]), ExactSum::ZERO] {
        assert_eq!(zero.to_f64().to_bits(), 0);
    }
    assert_eq!(sum_of(&[least]).to_f64().to_bits(), least.to_bits());
    assert_eq!(sum_of(&[least]).divided_by(3).to_bits(), 0);
    assert_eq!(sum_of(&[1.0]).divided_by(0), 0.0);
}

/// The limbs' headroom is enough for the period, and carrying restores it.
#[test]
fn holds_a_period_of_the_greatest_values() {
    for value in [f64::MAX, f64::MIN, f64::from_bits((1 << 53) - 1)] {
        let mut sum = ExactSum::ZERO;
        for _ in 0..2 {
            for _ in 0..CARRY_PERIOD {
                sum.add(value);
            }
            sum.carry();
        }
        assert_eq!(sum.divided_by(2 * CARRY_PERIOD), value);
    }
}

/// 2^64 of the greatest values still fit.
#[test]
fn holds_as_many_values_as_can_be_counted() {
    let mut sum = sum_of(&[f64::MIN]);
    for _ in 0..64 {
        let limbs = *sum.limbs();
        sum.merge(0, &limbs);
        sum.carry();
    }
    assert_eq!(sum.divided_by(1 << 63), f64::MIN);
    assert_eq!(sum.limbs()[LIMBS - 1], 0);
}
