//! Both drivers in network namespaces of their own: several hosts on one machine, wired by `veth` and bridges, with plain
//! addresses, no default route and no options, unless a test is about them. Linux, root and `ip` are needed, and `nft` for
//! firewalls; elsewhere each test says so and passes (or fails: `TILLWIRE_SKIP=never`).
//!
//! | file | what goes wrong there |
//! | --- | --- |
//! | `hosts` | nothing: hosts of one LAN, several nodes on one of them |
//! | `routes` | no default route, the wrong one, masks that differ |
//! | `changes` | interfaces that go, come back, come late, change their address |
//! | `copies` | the same LAN on two interfaces, switches in a loop |
//! | `virtuals` | containers and tunnels |
//! | `routers` | another subnet behind a router |
//! | `firewalls` | UDP stopped on the way |
//! | `sleep` | processes that are stopped for a while |
#![cfg(target_os = "linux")]

mod node;
mod together;

/// The modules and their scenarios; each becomes a test of its own. Those that take longest come first.
macro_rules! scenarios {
    ($($module:ident: $($name:ident),+;)+) => {
        $(mod $module;)+

        const ALL: &[(&str, fn())] = &[$($((stringify!($name), $module::$name)),+),+];

        $($(
            #[test]
            fn $name() {
                together::run(ALL, stringify!($name));
            }
        )+)+
    };
}

scenarios! {
    sleep:
        a_server_that_slept_longer_than_a_lease_loses_nobody_and_beacons_once,
        a_device_that_slept_through_three_refreshes_sends_one,
        a_device_that_slept_while_it_sought_asks_once;
    changes:
        a_server_with_a_new_address_is_followed_and_loses_nobody,
        directed_broadcasts_do_not_leak_either_while_nobody_has_noticed_yet,
        a_device_recovers_when_its_network_comes_late_and_when_its_address_changes,
        a_device_whose_interface_was_down_registers_again_and_nobody_is_told,
        a_cable_that_was_pulled_is_a_link_that_was_down,
        an_interface_added_later_is_used_by_servers_and_devices,
        a_server_recovers_when_its_network_was_down_and_leaks_nothing_meanwhile,
        a_network_that_was_down_for_a_while_costs_no_device,
        two_devices_that_swap_their_addresses_are_told_apart,
        a_server_whose_address_moves_to_another_interface_keeps_its_devices;
    firewalls:
        a_rule_that_is_taken_away_is_all_that_was_missing,
        behind_rules_that_let_answers_from_the_fixed_port_in_discovery_works,
        a_device_that_lets_in_nothing_but_answers_needs_a_seed;
    routers:
        a_device_with_a_seed_registers_through_a_router_and_survives_its_restart,
        without_a_seed_nothing_is_found_behind_a_router_and_without_leave_nothing_is_taken,
        a_broadcast_that_a_router_forwards_from_a_foreign_subnet_is_not_answered,
        a_device_that_is_carried_from_behind_a_router_to_the_lan_of_its_server_is_one_device;
    copies:
        a_server_with_two_interfaces_on_one_lan_has_each_device_once,
        a_device_with_two_interfaces_on_one_lan_is_one_device,
        four_copies_of_everything_are_one_device_and_three_counted_copies;
    virtuals:
        a_server_leaves_the_networks_of_containers_and_tunnels_alone,
        a_device_leaves_them_alone_too,
        what_is_allowed_is_used_and_the_rest_is_still_left_alone;
    routes:
        without_any_default_route_beacons_are_heard_on_every_interface_and_no_send_fails,
        with_the_default_route_on_the_wrong_interface_both_networks_are_served_from_their_own_address,
        a_wrong_mask_on_either_side_is_no_obstacle_as_long_as_each_is_in_the_others_subnet,
        a_mask_that_leaves_the_server_out_is_counted_and_mended_by_an_allowed_source;
    hosts:
        two_hosts_with_plain_addresses,
        several_bound_devices_of_one_host_hear_a_server_that_is_not_bound,
        a_bound_server_serves_the_interface_it_is_bound_to_and_no_other,
        a_directed_broadcast_goes_out_besides_the_limited_one;
}
