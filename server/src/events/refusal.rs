//! Why an event was not counted.

use std::fmt;

use barewire_service::counters;

/// The first thing that is wrong with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// RFC 8259, section 8.1: JSON is UTF-8.
    Utf8,
    /// RFC 8259: anything that the grammar does not have.
    Syntax,
    /// A JSON value that is not an object.
    NotAnObject,
    /// More containers in each other than [`super::parse::DEPTH_MAX`].
    TooDeep,
    /// Something follows the object.
    Trailing,
    /// No `userId`.
    UserIdMissing,
    /// More than one `userId`.
    UserIdTwice,
    /// A `userId` that is not a string.
    UserIdType,
    /// A `userId` without a character.
    UserIdEmpty,
    /// A `userId` longer than [`super::EventsConfig::user_id_bytes_max`].
    UserIdTooLong,
    /// Half of a surrogate pair, as in `"\ud800"`: not a character.
    UserIdUnicode,
    /// No `value`.
    ValueMissing,
    /// More than one `value`.
    ValueTwice,
    /// A `value` that is not a number.
    ValueType,
    /// A `value` that would be rounded to infinity.
    ValueRange,
    /// A new user, and there are [`super::EventsConfig::users_max`] already. Not the client's fault.
    UsersFull,
    /// Another process counts in our place, and cannot be reached. Not the client's fault.
    HandedOver,
}

impl Refusal {
    /// The reason, for the sender of the event.
    pub fn reason(self) -> &'static str {
        match self {
            Refusal::Utf8 => "the body is not valid UTF-8",
            Refusal::Syntax => "the body is not valid JSON",
            Refusal::NotAnObject => "the body is not a JSON object",
            Refusal::TooDeep => "the body is nested too deeply",
            Refusal::Trailing => "the body goes on after the JSON object",
            Refusal::UserIdMissing => "userId is missing",
            Refusal::UserIdTwice => "userId is there twice",
            Refusal::UserIdType => "userId is not a string",
            Refusal::UserIdEmpty => "userId is empty",
            Refusal::UserIdTooLong => "userId is too long",
            Refusal::UserIdUnicode => "userId is not valid Unicode",
            Refusal::ValueMissing => "value is missing",
            Refusal::ValueTwice => "value is there twice",
            Refusal::ValueType => "value is not a number",
            Refusal::ValueRange => "value is beyond the range of a 64-bit float",
            Refusal::HandedOver => "the server that counts in this one's place does not answer",
            Refusal::UsersFull => "no more users can be counted: restart with a larger --max-users",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for Refusal {}

counters! {
    /// What one core did with the events it got.
    pub struct EventCounters {
        /// Events counted.
        counted: Counter,
        /// Bodies refused because they are not valid UTF-8.
        refused_utf8: Loss,
        /// Bodies refused because they are not valid JSON.
        refused_syntax: Loss,
        /// Bodies refused because they are not an object.
        refused_not_an_object: Loss,
        /// Bodies refused because they are nested too deeply.
        refused_too_deep: Loss,
        /// Bodies refused because something follows the object.
        refused_trailing: Loss,
        /// Events refused without userId.
        refused_user_id_missing: Loss,
        /// Events refused with two userIds.
        refused_user_id_twice: Loss,
        /// Events refused because userId is not a string.
        refused_user_id_type: Loss,
        /// Events refused because userId is empty.
        refused_user_id_empty: Loss,
        /// Events refused because userId is too long.
        refused_user_id_too_long: Loss,
        /// Events refused because userId is not valid Unicode.
        refused_user_id_unicode: Loss,
        /// Events refused without value.
        refused_value_missing: Loss,
        /// Events refused with two values.
        refused_value_twice: Loss,
        /// Events refused because value is not a number.
        refused_value_type: Loss,
        /// Events refused because value is beyond the range of a 64-bit float.
        refused_value_range: Loss,
        /// Events of new users refused because the bound on users is reached.
        refused_users_full: Loss,
        /// Events refused because the process that goes on in this one's place does not answer.
        refused_handed_over: Loss,
    }
}

impl EventCounters {
    /// Counts a refusal.
    pub(super) fn refuse(&self, refusal: Refusal) {
        let counter = match refusal {
            Refusal::Utf8 => &self.refused_utf8,
            Refusal::Syntax => &self.refused_syntax,
            Refusal::NotAnObject => &self.refused_not_an_object,
            Refusal::TooDeep => &self.refused_too_deep,
            Refusal::Trailing => &self.refused_trailing,
            Refusal::UserIdMissing => &self.refused_user_id_missing,
            Refusal::UserIdTwice => &self.refused_user_id_twice,
            Refusal::UserIdType => &self.refused_user_id_type,
            Refusal::UserIdEmpty => &self.refused_user_id_empty,
            Refusal::UserIdTooLong => &self.refused_user_id_too_long,
            Refusal::UserIdUnicode => &self.refused_user_id_unicode,
            Refusal::ValueMissing => &self.refused_value_missing,
            Refusal::ValueTwice => &self.refused_value_twice,
            Refusal::ValueType => &self.refused_value_type,
            Refusal::ValueRange => &self.refused_value_range,
            Refusal::UsersFull => &self.refused_users_full,
            Refusal::HandedOver => &self.refused_handed_over,
        };
        counter.increment();
    }
}
