//! The README and the guides: every command that they show prints what they show.

use linmap_tests::check_session;

#[test]
fn the_readmes_commands_print_what_it_shows() {
    check_session("README.md");
}
