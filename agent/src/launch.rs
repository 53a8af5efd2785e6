//! From an app's spec and its image to what the runtime is told: merged as Docker and Kubernetes merge them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bellows_agent_core::ReplicaId;
use bellows_proto::types::{AppSpec, Confinement, DiskRates};
use bellows_runtime::image::Image;
use bellows_runtime::{ContainerId, ContainerSpec, IoLimits, Limits, User, names};

/// What the container of one attempt shall be.
pub(crate) fn container_spec(
    id: ContainerId,
    replica: ReplicaId,
    node: &str,
    app: &AppSpec,
    image: &Image,
) -> ContainerSpec {
    let config = &image.config;
    ContainerSpec {
        tenant: app.tenant.clone(),
        hostname: replica.to_string(),
        args: command_line(app, image),
        env: environment(replica, node, app, image),
        working_dir: PathBuf::from(if config.working_dir.is_empty() { "/" } else { &config.working_dir }),
        user: User { uid: config.user.uid, gid: config.user.gid, groups: config.user.groups.clone() },
        limits: limits(app),
        egress: app.egress,
        drop_capabilities: known(app, |security| &security.drop_capabilities, names::capability),
        deny_calls: known(app, |security| &security.deny_calls, names::call),
        add_capabilities: known(app, |security| &security.add_capabilities, names::more_capability),
        add_calls: known(app, |security| &security.add_calls, names::more_call),
        stop_signal: config.stop_signal.unwrap_or(SIGTERM),
        ..ContainerSpec::new(id, image.root.clone(), &[])
    }
}

/// What asks an app to end when its image says nothing else.
pub(crate) const SIGTERM: i32 = 15;

/// `command` replaces the image's entrypoint and drops its default arguments; `args` replace these.
fn command_line(app: &AppSpec, image: &Image) -> Vec<String> {
    let config = &image.config;
    let (first, rest) = match (app.command.is_empty(), app.args.is_empty()) {
        (true, true) => (&config.entrypoint, &config.cmd),
        (true, false) => (&config.entrypoint, &app.args),
        (false, _) => (&app.command, &app.args),
    };
    first.iter().chain(rest).cloned().collect()
}

/// The image's environment, then the app's, then what Bellows says; later ones win.
fn environment(replica: ReplicaId, node: &str, app: &AppSpec, image: &Image) -> Vec<String> {
    let mut env: BTreeMap<&str, &str> = BTreeMap::from([("HOME", image.config.user.home.as_str())]);
    env.extend(image.config.env.iter().filter_map(|entry| entry.split_once('=')));
    env.extend(app.env.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let replica = replica.to_string();
    env.extend([("BELLOWS_APP", app.name.as_str()), ("BELLOWS_REPLICA", &replica), ("BELLOWS_NODE", node)]);
    env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// The numbers of what the app does without. What is no name here (of another architecture, say) nobody has here either.
fn known<T>(app: &AppSpec, list: fn(&Confinement) -> &Vec<String>, number: fn(&str) -> Option<T>) -> Vec<T> {
    app.security.iter().flat_map(list).filter_map(|name| number(name)).collect()
}

fn io(rates: DiskRates) -> IoLimits {
    IoLimits {
        read_bytes: rates.read_bytes,
        write_bytes: rates.write_bytes,
        read_operations: rates.read_operations,
        write_operations: rates.write_operations,
    }
}

/// Zero means that the spec says nothing: then the runtime's default holds.
fn limits(app: &AppSpec) -> Limits {
    let default = Limits::default();
    let declared = app.resources.unwrap_or_default();
    let or = |said: u64, default: u64| if said == 0 { default } else { said };
    Limits {
        cpu_milli: or(declared.cpu_milli, default.cpu_milli),
        cpu_weight: app.cpu_weight.unwrap_or(0).into(),
        memory_bytes: or(declared.memory_bytes, default.memory_bytes),
        processes: or(app.processes.into(), default.processes),
        scratch_bytes: or(app.scratch_bytes, default.scratch_bytes),
        log_bytes: or(app.log_bytes, default.log_bytes),
        open_files: default.open_files,
        io: io(app.disk_rates.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellows_runtime::image::{Digest, ImageConfig};

    fn image() -> Image {
        let config = ImageConfig {
            entrypoint: vec!["/bin/server".to_owned()],
            cmd: vec!["--default".to_owned()],
            env: vec!["PATH=/bin".to_owned(), "MODE=image".to_owned()],
            working_dir: "/srv".to_owned(),
            ..ImageConfig::default()
        };
        Image { digest: Digest::of(b"x"), root: PathBuf::from("/trees/x"), config, skipped: Vec::new() }
    }

    fn spec(app: &AppSpec) -> ContainerSpec {
        let replica: ReplicaId = "1-2-3".parse().expect("a replica id");
        container_spec(crate::containers::container(replica, 1), replica, "n1", app, &image())
    }

    #[test]
    fn command_and_args_replace_entrypoint_and_cmd() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>();
        for (command, args, expected) in [
            (words(&[]), words(&[]), words(&["/bin/server", "--default"])),
            (words(&[]), words(&["-x"]), words(&["/bin/server", "-x"])),
            (words(&["sh"]), words(&[]), words(&["sh"])),
            (words(&["sh"]), words(&["-c", "true"]), words(&["sh", "-c", "true"])),
        ] {
            assert_eq!(spec(&AppSpec { command, args, ..AppSpec::default() }).args, expected);
        }
    }

    #[test]
    fn the_environment_is_merged_and_says_who_one_is() {
        let env = [("MODE", "app"), ("EXTRA", "a=b")].map(|(k, v)| (k.to_owned(), v.to_owned())).into_iter().collect();
        let spec = spec(&AppSpec { name: "web".to_owned(), env, ..AppSpec::default() });
        let expected = [
            "BELLOWS_APP=web",
            "BELLOWS_NODE=n1",
            "BELLOWS_REPLICA=1-2-3",
            "EXTRA=a=b",
            "HOME=/",
            "MODE=app",
            "PATH=/bin",
        ];
        assert_eq!(spec.env, expected);
        assert_eq!((spec.hostname.as_str(), spec.stop_signal), ("1-2-3", 15));
        assert_eq!(spec.working_dir, PathBuf::from("/srv"));
    }

    #[test]
    fn what_an_app_does_without_is_taken_from_its_copies() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let security = Confinement {
            drop_capabilities: words(&["net_raw"]),
            deny_calls: words(&["read", "no_such"]),
            ..Confinement::default()
        };
        let app = AppSpec { egress: true, security: Some(security), cpu_weight: Some(200), ..AppSpec::default() };
        let spec = spec(&app);
        assert_eq!((spec.egress, spec.limits.cpu_weight), (true, 200));
        assert_eq!((spec.drop_capabilities, spec.deny_calls), (vec![13], vec![names::call("read").expect("known")]));
    }

    #[test]
    fn what_the_spec_does_not_say_is_the_runtimes_default() {
        let app = AppSpec { processes: 9, ..AppSpec::default() };
        assert_eq!(spec(&app).limits, Limits { processes: 9, ..Limits::default() });
        assert_eq!(spec(&app).check(), Ok(()));
    }
}
