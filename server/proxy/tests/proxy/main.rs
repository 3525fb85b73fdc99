//! Requests through a proxy over real sockets, on each stack that accepts and opens.

#![allow(clippy::unwrap_used)]

mod cases;
mod edge;

/// Runs every case on the stack that `$start` starts.
macro_rules! on_each_stack {
    ($($case:ident)+) => {
        mod epoll {
            $( #[test] fn $case() { super::cases::$case(super::edge::epoll); } )+
        }
        mod uring {
            $( #[test] fn $case() { super::cases::$case(super::edge::uring); } )+
        }
    };
}

on_each_stack! {
    a_request_is_made_anew_and_its_response_too
    connections_to_an_origin_are_kept_and_reused
    pipelined_requests_are_answered_in_order
    bodies_of_any_length_go_both_ways
    a_client_that_does_not_read_holds_its_origin_back
    an_origin_that_does_not_read_holds_its_client_back
    what_could_be_read_in_two_ways_reaches_no_origin
    an_origin_that_is_not_there_or_says_nothing_valid_is_a_bad_gateway
    an_origin_that_hangs_is_a_gateway_timeout
    an_origin_that_promises_more_than_it_sends_ends_the_connection
    what_is_idempotent_is_tried_elsewhere_and_nothing_else
    an_origin_that_fails_in_a_row_is_ejected
    an_origin_whose_check_fails_gets_nothing
    a_client_that_goes_away_takes_its_call_along
    what_no_route_has_is_not_found
    beyond_the_limit_of_calls_requests_are_refused
    responses_without_content_have_none
    a_response_without_length_ends_with_its_stream
    drain_finishes_the_calls_in_progress
}
