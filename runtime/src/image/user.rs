//! The user an image runs as: from `User` of its config and the image's own `/etc/passwd` and `/etc/group`, by the rules that Docker set:
//! a name must exist, a number need not; an explicit group replaces the supplementary ones.

use super::config::User;
use super::error::{Error, Result};

/// A line of `/etc/passwd`.
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// A line of `/etc/group`.
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: Vec<&'a str>,
}

/// Resolves `name`, `uid`, `name:group`, `uid:gid` and mixtures; empty means root.
pub(super) fn resolve(spec: &str, passwd: &str, group: &str) -> Result<User> {
    let accounts: Vec<Account<'_>> = passwd.lines().filter_map(account).collect();
    let groups: Vec<Group<'_>> = group.lines().filter_map(parse_group).collect();
    let (user_part, group_part) = spec.split_once(':').map_or((spec, None), |(user, group)| (user, Some(group)));
    let (uid, account) = find_user(spec, user_part, &accounts)?;
    let mut user =
        User { spec: spec.to_owned(), uid, gid: account.map_or(0, |account| account.gid), ..User::default() };
    if let Some(account) = account.filter(|account| account.home.starts_with('/')) {
        user.home = account.home.to_owned();
    }
    match group_part.filter(|group| !group.is_empty()) {
        Some(group) => user.gid = find_group(spec, group, &groups)?,
        None => user.groups = supplementary(account, user.gid, &groups),
    }
    Ok(user)
}

fn find_user<'a>(spec: &str, part: &str, accounts: &'a [Account<'a>]) -> Result<(u32, Option<&'a Account<'a>>)> {
    let part = if part.is_empty() { "0" } else { part };
    if let Some(account) = accounts.iter().find(|account| account.name == part) {
        return Ok((account.uid, Some(account)));
    }
    match number(part) {
        Some(uid) => Ok((uid, accounts.iter().find(|account| account.uid == uid))),
        None => Err(unknown(
            spec,
            format!("there is no user `{part}` in the image's /etc/passwd; add it there, or use a number"),
        )),
    }
}

fn find_group(spec: &str, part: &str, groups: &[Group<'_>]) -> Result<u32> {
    let named = groups.iter().find(|group| group.name == part).map(|group| group.gid);
    named.or_else(|| number(part)).ok_or_else(|| {
        unknown(spec, format!("there is no group `{part}` in the image's /etc/group; add it there, or use a number"))
    })
}

fn supplementary(account: Option<&Account<'_>>, primary: u32, groups: &[Group<'_>]) -> Vec<u32> {
    let Some(account) = account else { return Vec::new() };
    let mut gids: Vec<u32> =
        groups.iter().filter(|group| group.members.contains(&account.name)).map(|group| group.gid).collect();
    gids.retain(|gid| *gid != primary);
    gids.sort_unstable();
    gids.dedup();
    gids
}

fn account(line: &str) -> Option<Account<'_>> {
    let mut fields = line.split(':');
    let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let home = fields.nth(1).unwrap_or("");
    Some(Account { name, uid: number(uid)?, gid: number(gid)?, home })
}

fn parse_group(line: &str) -> Option<Group<'_>> {
    let mut fields = line.split(':');
    let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
    let members = fields.next().unwrap_or("").split(',').filter(|member| !member.is_empty()).collect();
    Some(Group { name, gid: number(gid)?, members })
}

/// Ids end below 2^32 - 1, which means "none" to the kernel.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten().filter(|id| *id != u32::MAX)
}

fn unknown(spec: &str, why: String) -> Error {
    Error::UnknownUser { user: spec.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/srv:/bin/false\n# no line\n7:x:70:71:digits:/seven:\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:web\nlogs:x:4:web,other\nssl:x:2:web\n";

    fn check(spec: &str, expected: (u32, u32, &[u32], &str)) {
        let user = resolve(spec, PASSWD, GROUP).unwrap_or_else(|error| panic!("{spec}: {error}"));
        assert_eq!((user.uid, user.gid, &user.groups[..], &user.home[..]), expected, "{spec}");
    }

    #[test]
    fn as_docker_does() {
        check("", (0, 0, &[], "/root"));
        check("web", (33, 34, &[2, 4], "/srv"));
        check("33", (33, 34, &[2, 4], "/srv"));
        check("web:logs", (33, 4, &[], "/srv"));
        check("web:9", (33, 9, &[], "/srv"));
        check("1000", (1000, 0, &[], "/"));
        check("1000:1000", (1000, 1000, &[], "/"));
        check(":4", (0, 4, &[], "/root"));
        check("7", (70, 71, &[], "/seven"));
    }

    #[test]
    fn who_is_nobody() {
        for spec in ["nobody", "web:nogroup", "-1", "4294967295", "99999999999"] {
            assert!(matches!(resolve(spec, PASSWD, GROUP), Err(Error::UnknownUser { .. })), "{spec}");
        }
    }
}
