//! A whole Debian as an image: debootstrap makes the root file system, umoci the image, and Debian's own tools judge inside a copy
//! whether everything arrived: every file of every package, owners, modes, links, names, capabilities; and dpkg works there as root.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Instant;

use super::support::machine;
use super::*;

/// `debian.sh` ends so when packages cannot be fetched.
const NO_NETWORK: i32 = 75;

/// Installing and removing a package, and reading all files again, on a loaded machine.
const INSIDE: Duration = Duration::from_secs(120);

/// Of the answer; more than the script says.
const LINES_AHEAD: usize = 1024;

/// The last line of the script inside.
const END: &str = "the end";

/// The script that runs as root of its user namespace. Each line of its answer begins with a word to find it by.
const SCRIPT: &str = r#"
exec 2>&1
say() { word=$1; shift; "$@" 2>&1 | sed "s/^/$word: /"; }
say id id -u
say packages sh -c 'dpkg-query -f "x\n" -W | wc -l'
say getent getent passwd nobody
say mode stat -c '%a %u %g %h %n' /bin/su /usr/bin/passwd /opt/owned /opt/twin /opt/shared /opt/pipe /opt/capped
say link readlink /opt/link
say time stat -c %Y /opt/old
say unicode cat /opt/żółć-名前-🙂
say long sh -c 'cat /opt/nnnnnnn*; cd /opt; set -- nnnnnnn*; printf "%s" "$1" | wc -c'
say deep sh -c 'cat /opt/ddd*/eee*/f'
say capability perl -e '($p, $k, $b) = ("/opt/capped", "security.capability", "\0" x 64);
  $n = syscall(GETXATTR, $p, $k, $b, 64); print unpack("H*", substr($b, 0, $n > 0 ? $n : 0)), "\n"'
say verify dpkg --verify
say audit dpkg --audit
say user useradd --uid 1234 --create-home joe
say joe su joe -c 'cd; id -u; pwd; touch /etc/joe || echo refused'
mkdir -p /tmp/p/DEBIAN /tmp/p/usr/share/hello
echo hi > /tmp/p/usr/share/hello/hi
printf 'Package: hello-own\nVersion: 1\nArchitecture: all\nMaintainer: A <a@b.example>\nDescription: x\n' > /tmp/p/DEBIAN/control
printf '#!/bin/sh\nchown 33:33 /usr/share/hello/hi\n' > /tmp/p/DEBIAN/postinst
chmod 755 /tmp/p/DEBIAN/postinst
say build dpkg-deb --build /tmp/p /tmp/p.deb
say install sh -c 'dpkg --install /tmp/p.deb > /dev/null; dpkg-query -f "\${Status}\n" -W hello-own; stat -c %u /usr/share/hello/hi'
say remove sh -c 'dpkg --remove hello-own > /dev/null; ls /usr/share/hello'
echo the end
sleep 100000
"#;

/// Numbers of `setxattr` and `getxattr`.
const XATTR: (&str, &str) = if cfg!(target_arch = "aarch64") { ("5", "8") } else { ("188", "191") };

#[test]
fn a_debian_of_debootstrap_and_umoci_is_whole_inside() {
    let Some(_machine) = machine(&["debootstrap", "umoci", "unshare", "apt-get"]) else { return };
    let Some((codename, mirror)) = mirror() else { return };
    let work = tempfile::tempdir().expect("a temporary folder");
    let layout = work.path().join("layout");
    if !image(work.path(), &layout, &codename, &mirror) {
        return;
    }
    let state = tempfile::tempdir().expect("a temporary folder");
    let dev = Dev::start(state.path(), &["--nodes", "1"]);
    dev.cli.json(&["image", "load", layout.to_str().expect("temporary paths are text"), "--name", "debian"]);
    dev.cli.apply(&debian(), &["--wait"]);
    let said = answer(&dev);
    check(&said);
    Bench { dev, state }.end();
}

/// Where this machine's own apt gets Debian from.
fn mirror() -> Option<(String, String)> {
    let format = "$(CODENAME) $(REPO_URI)";
    let output = Command::new("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]).output();
    let said = super::support::cli::text(&output.expect("it was found").stdout);
    let known = |codename: &str| Path::new("/usr/share/debootstrap/scripts").join(codename).exists();
    let fetchable = |uri: &str| ["http://", "https://"].iter().any(|scheme| uri.starts_with(scheme));
    let mut sources = said.lines().filter_map(|line| line.split_once(' '));
    let found = sources.find(|(codename, uri)| known(codename) && fetchable(uri) && !uri.contains("security"));
    if found.is_none() {
        println!("skipped: apt's sources name no Debian that debootstrap knows and can fetch over HTTP");
    }
    found.map(|(codename, uri)| (codename.to_owned(), uri.to_owned()))
}

/// False, with the reason printed, when packages cannot be fetched here.
fn image(work: &Path, layout: &Path, codename: &str, mirror: &str) -> bool {
    let script = work.join("debian.sh");
    let memory = work.join("memory");
    fs::write(&script, include_str!("debian.sh")).expect("writable");
    fs::create_dir(&memory).expect("writable");
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh"]).arg(&script).arg(&memory).arg(layout).args([codename, mirror, XATTR.0]);
    let began = Instant::now();
    let output = command.env("PATH", path).stdin(Stdio::null()).output().expect("it was found");
    let complained = super::support::cli::text(&output.stderr);
    if output.status.code() == Some(NO_NETWORK) {
        println!("skipped: debootstrap could not fetch packages from this machine's sources:\n{complained}");
        return false;
    }
    assert!(output.status.success(), "debian.sh: {}\n{complained}", output.status);
    println!("debootstrap and umoci took {} s", began.elapsed().as_secs());
    true
}

fn debian() -> String {
    let script = SCRIPT.replace("GETXATTR", XATTR.1).replace('\n', "\n    ");
    format!(
        "name: debian\nimage: debian\nreplicas: 1\n\
         resources: {{cpu: 500m, memory: 256Mi, processes: 64, scratch: 64Mi, log: 1Mi}}\n\
         command:\n  - sh\n  - -c\n  - |{script}\n"
    )
}

/// What the script said, to its last line.
fn answer(dev: &Dev) -> Vec<String> {
    let mut follower = dev.cli.command(&["logs", "debian", "-f"]).spawn().expect("the executable was built");
    let out = BufReader::new(follower.stdout.take().expect("stdout is piped"));
    let (tell, told) = mpsc::sync_channel(LINES_AHEAD);
    let reader = std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
    let deadline = Instant::now() + INSIDE;
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line| line != END) {
        match told.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => lines.push(line),
            Err(error) => {
                stop(&mut follower);
                panic!("the script inside did not come to its end ({error}): {lines:#?}");
            }
        }
    }
    drop(told);
    stop(&mut follower);
    // It may have been about to say more to nobody.
    let _ = reader.join().expect("reading lines does not panic");
    lines
}

fn stop(follower: &mut Child) {
    follower.kill().and_then(|()| follower.wait()).expect("it is our child");
}

fn check(lines: &[String]) {
    let of = |word: &str| -> Vec<&str> {
        lines.iter().filter_map(|line| line.strip_prefix(word)?.strip_prefix(": ")).collect()
    };
    let whole = lines.join("\n");
    assert_eq!(of("id"), ["0"], "{whole}");
    let packages: u32 = of("packages").first().and_then(|count| count.parse().ok()).unwrap_or_default();
    assert!(packages > 60, "{whole}");
    assert!(of("getent").first().is_some_and(|line| line.starts_with("nobody:x:65534:65534:")), "{whole}");
    let modes = [
        "4755 0 0 1 /bin/su",
        "4755 0 0 1 /usr/bin/passwd",
        "6750 12345 54321 2 /opt/owned",
        "6750 12345 54321 2 /opt/twin",
        "3770 33 33 2 /opt/shared",
        "640 0 0 1 /opt/pipe",
        "755 0 0 1 /opt/capped",
    ];
    assert_eq!(of("mode"), modes, "{whole}");
    assert_eq!((of("link"), of("time")), (vec!["twin"], vec!["981173106"]), "{whole}");
    assert_eq!(
        (of("unicode"), of("long"), of("deep")),
        (vec!["unicode"], vec!["long", "255"], vec!["deep"]),
        "{whole}"
    );
    assert_eq!(of("capability"), ["0100000200040000000000000000000000000000"], "{whole}");
    assert_eq!((of("verify"), of("audit")), (vec![], vec![]), "every file is as its package says: {whole}");
    assert_eq!(of("user"), Vec::<&str>::new(), "{whole}");
    let joe = of("joe");
    assert_eq!((joe.first(), joe.get(1), joe.last()), (Some(&"1234"), Some(&"/home/joe"), Some(&"refused")), "{whole}");
    assert_eq!(of("install"), ["install ok installed", "33"], "{whole}");
    assert!(of("remove").first().is_some_and(|line| line.contains("No such file")), "{whole}");
}
