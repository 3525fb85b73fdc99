//! `auto`, or a list of numbers: `0,2` and `0-3,8`.

use std::fmt;
use std::str::FromStr;

/// Which queues or cores to use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum List {
    /// All there are.
    #[default]
    Auto,
    /// These, in this order, each once and at least one.
    These(Vec<usize>),
}

/// More than any machine has; `0-4000000000` is a mistake.
const NUMBER_MAX: usize = 4095;

impl List {
    /// The numbers, empty for [`List::Auto`].
    pub fn numbers(&self) -> &[usize] {
        match self {
            List::Auto => &[],
            List::These(numbers) => numbers,
        }
    }
}

impl FromStr for List {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(List::Auto);
        }
        let mut numbers = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(format!("{part}: a range goes upwards"));
            }
            for number in first..=last {
                if numbers.contains(&number) {
                    return Err(format!("{number} is there twice"));
                }
                numbers.push(number);
            }
        }
        Ok(List::These(numbers))
    }
}

fn number(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number <= NUMBER_MAX => Ok(number),
        Ok(number) => Err(format!("{number} is more than {NUMBER_MAX}")),
        Err(_) => Err(format!(
            "{text:?} is not a number; write auto, or a list as in 0,2 or 0-3"
        )),
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            List::Auto => f.write_str("auto"),
            List::These(numbers) => {
                let numbers: Vec<_> = numbers.iter().map(usize::to_string).collect();
                f.write_str(&numbers.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_and_ranges_keep_their_order() {
        assert_eq!("auto".parse(), Ok(List::Auto));
        assert_eq!("3,0-2".parse(), Ok(List::These(vec![3, 0, 1, 2])));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in [
            "",
            ",",
            "a",
            "0,",
            "-1",
            "2-1",
            "0-",
            "0,1,0",
            "1-3,2",
            "0-4096",
            "99999999999999999999",
        ] {
            assert!(text.parse::<List>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_list_survives_being_written(numbers in prop::collection::hash_set(0..=NUMBER_MAX, 1..20)) {
            let list = List::These(numbers.into_iter().collect());
            prop_assert_eq!(list.to_string().parse(), Ok(list));
        }

        #[test]
        fn nothing_panics(text in ".{0,30}") {
            let _ = text.parse::<List>();
        }
    }
}
