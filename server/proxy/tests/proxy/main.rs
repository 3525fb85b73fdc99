//! Requests through a proxy over real sockets, on each stack that accepts and opens.

#![allow(clippy::unwrap_used)]

mod cases;
mod edge;
mod http2;
mod teleport;

/// Runs cases of a module on each stack: as the tests of two modules, each with a function that starts a proxy.
macro_rules! on_each_stack {
    ($cases:ident: $epoll:ident = $start_epoll:ident, $uring:ident = $start_uring:ident; $($case:ident)+) => {
        mod $epoll {
            $( #[test] fn $case() { super::$cases::$case(super::edge::$start_epoll); } )+
        }
        mod $uring {
            $( #[test] fn $case() { super::$cases::$case(super::edge::$start_uring); } )+
        }
    };
}

on_each_stack! {
    cases: epoll = epoll, uring = uring;
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

on_each_stack! {
    teleport: teleport_epoll = epoll, teleport_uring = uring;
    requests_and_responses_arrive_as_they_were_in_each_compression
    bodies_of_megabytes_go_both_ways_at_once
    a_hundred_clients_share_two_connections
    a_fast_call_overtakes_a_slow_one
    a_client_that_does_not_read_stops_only_its_own_call
    a_client_that_goes_away_takes_its_call_along
    what_an_origin_did_not_take_is_sent_elsewhere_whatever_the_method
    what_an_origin_may_have_taken_is_sent_elsewhere_if_it_is_idempotent
    an_origin_of_another_version_or_protocol_is_a_bad_gateway
    an_origin_that_vanishes_is_a_gateway_timeout_and_its_connection_is_given_up
    garbage_and_frames_that_are_too_long_end_their_connection_only
    a_check_is_a_call_like_the_others
    drain_finishes_the_calls_in_progress
}

on_each_stack! {
    http2: http2_epoll = epoll, http2_uring = uring;
    a_request_is_made_anew_and_its_response_too
    a_fast_call_overtakes_a_slow_one
    a_hundred_streams_are_answered
    bodies_of_any_length_go_both_ways
    a_client_that_does_not_read_a_stream_stops_only_that
    a_stream_that_is_cancelled_takes_its_call_along
    an_origin_that_promises_more_than_it_sends_ends_its_stream_only
    what_cannot_be_forwarded_is_refused
    drain_finishes_the_calls_in_progress
}

on_each_stack! {
    http2: http2_chain_epoll = epoll_by_teleport, http2_chain_uring = uring_by_teleport;
    a_fast_call_overtakes_a_slow_one
    a_hundred_streams_are_answered
    bodies_of_any_length_go_both_ways
    a_client_that_does_not_read_a_stream_stops_only_that
    drain_finishes_the_calls_in_progress
}

on_each_stack! {
    cases: chain_epoll = epoll_by_teleport, chain_uring = uring_by_teleport;
    pipelined_requests_are_answered_in_order
    a_client_that_does_not_read_holds_its_origin_back
    an_origin_that_does_not_read_holds_its_client_back
    an_origin_that_is_not_there_or_says_nothing_valid_is_a_bad_gateway
    what_no_route_has_is_not_found
    a_response_without_length_ends_with_its_stream
    drain_finishes_the_calls_in_progress
}
