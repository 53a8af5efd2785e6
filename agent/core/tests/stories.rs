//! Behaviour as stories: a script goes in line by line, and what the agent's mind wants done comes out under each line.
//! Golden output beside this file; `INSTA_UPDATE=always cargo test` rewrites it, and then a person reads the difference.

mod script;

use script::tell;

macro_rules! story {
    ($name:ident) => {
        #[test]
        fn $name() {
            insta::assert_snapshot!(
                stringify!($name),
                tell(include_str!(concat!("stories/", stringify!($name), ".txt")))
            );
        }
    };
}

story!(first_replica);
story!(lower_fence_refused);
story!(higher_fence_persisted_first);
story!(crash_loop);
story!(stop_with_grace_and_kill);
story!(busy_refuses_to_stop);
story!(parked_and_back);
story!(silence_stops_nothing);
story!(cut_off);
story!(agent_restarts);
story!(server_rebooted);
story!(processes_killed);
story!(ends_are_remembered);
story!(clock_jumps);
story!(no_room);
story!(no_image);
story!(stop_overtakes_start);
story!(said_twice);
story!(demand);
story!(allowance);
story!(allowance_unused);
story!(asked_for_no_more);
story!(health);
story!(frozen);
