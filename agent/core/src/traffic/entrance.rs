//! Where requests come in: a port of the node, a host name, the beginning of a path.

use std::collections::BTreeMap;

use crate::ids::AppId;
use crate::units::Bytes;

/// What a route speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Requests, passed on to the app in HTTP/1.1.
    #[default]
    Http,
    /// Requests, passed on in HTTP/2.
    Http2,
    /// Connections.
    Tcp,
}

/// One way to an app.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// A port of this node.
    pub listen: u16,
    /// In small letters; empty: any.
    pub host: String,
    /// What the path begins with, in whole segments, without a slash at its end; empty: any.
    pub path: String,
    /// The app's own port.
    pub port: u16,
    /// What it speaks.
    pub protocol: Protocol,
    /// Within TLS?
    pub tls: bool,
    /// A larger body of a request is refused; none: any.
    pub max_body: Option<Bytes>,
}

/// An app that can be asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entrance {
    /// Whose.
    pub app: AppId,
    /// For people.
    pub name: String,
    /// Its ways in.
    pub routes: Vec<Route>,
    /// May demand start copies?
    pub elastic: bool,
}

/// Every way in, of all apps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entrances {
    apps: BTreeMap<AppId, Entrance>,
    /// The routes of each port, the most particular first.
    ports: BTreeMap<u16, Vec<(AppId, Route)>>,
}

/// Where a request leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// The app.
    pub app: AppId,
    /// By which of its routes.
    pub route: &'a Route,
}

impl Entrances {
    /// Takes changes in; with `whole`, what is not named is gone.
    pub fn update(&mut self, whole: bool, changed: Vec<Entrance>, gone: &[AppId]) {
        if whole {
            self.apps.clear();
        }
        for app in gone {
            self.apps.remove(app);
        }
        self.apps.extend(changed.into_iter().map(|entrance| (entrance.app, entrance)));
        self.ports = by_port(&self.apps);
    }

    /// Ports to listen on, each with what it speaks.
    pub fn ports(&self) -> impl Iterator<Item = (u16, Protocol)> + '_ {
        self.ports.iter().filter_map(|(port, routes)| routes.first().map(|(_, route)| (*port, route.protocol)))
    }

    /// What is spoken at a port, and whether within TLS.
    pub fn spoken(&self, port: u16) -> Option<(Protocol, bool)> {
        self.ports.get(&port)?.first().map(|(_, route)| (route.protocol, route.tls))
    }

    /// The app's entrance.
    pub fn app(&self, app: AppId) -> Option<&Entrance> {
        self.apps.get(&app)
    }

    /// Every app.
    pub fn apps(&self) -> impl Iterator<Item = &Entrance> {
        self.apps.values()
    }

    /// The app that takes requests for `host` (any case, with or without a port) and `path` on this port: the named host before any
    /// host, the longest path first.
    pub fn find(&self, port: u16, host: &str, path: &str) -> Option<Found<'_>> {
        let host = without_port(host);
        let takes = |(_, route): &&(AppId, Route)| {
            (route.host.is_empty() || route.host.eq_ignore_ascii_case(host)) && begins(path, &route.path)
        };
        self.ports.get(&port)?.iter().find(takes).map(|(app, route)| Found { app: *app, route })
    }
}

fn by_port(apps: &BTreeMap<AppId, Entrance>) -> BTreeMap<u16, Vec<(AppId, Route)>> {
    let mut ports: BTreeMap<u16, Vec<(AppId, Route)>> = BTreeMap::new();
    for (app, entrance) in apps {
        for route in &entrance.routes {
            ports.entry(route.listen).or_default().push((*app, route.clone()));
        }
    }
    for routes in ports.values_mut() {
        routes.sort_by_key(|(app, route)| (route.host.is_empty(), usize::MAX - route.path.len(), *app));
    }
    ports
}

/// `a.example:8080` -> `a.example`, `[::1]:80` -> `[::1]`; a dot at the end of a name means nothing.
fn without_port(host: &str) -> &str {
    let end = match host.strip_prefix('[') {
        Some(rest) => rest.find(']').map_or(host.len(), |at| at + 2),
        None => host.find(':').unwrap_or(host.len()),
    };
    host[..end].trim_end_matches('.')
}

/// In whole segments: `/api` begins `/api` and `/api/x`, not `/apix`.
fn begins(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']) || prefix.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(host: &str, path: &str) -> Route {
        Route { listen: 80, host: host.to_owned(), path: path.to_owned(), port: 8080, ..Route::default() }
    }

    fn entrances() -> Entrances {
        let app = |id, routes| Entrance { app: AppId(id), name: format!("app{id}"), routes, elastic: false };
        let mut all = Entrances::default();
        let apps = vec![
            app(1, vec![route("", "")]),
            app(2, vec![route("a.example", "")]),
            app(3, vec![route("a.example", "/api")]),
            app(4, vec![route("", "/api/v2")]),
        ];
        all.update(true, apps, &[]);
        all
    }

    #[test]
    fn the_most_particular_way_is_taken() {
        let all = entrances();
        let cases = [
            ("b.example", "/", 1),
            ("A.Example:8080", "/", 2),
            ("a.example.", "/x?y", 2),
            ("a.example", "/api", 3),
            ("a.example", "/api?x", 3),
            ("a.example", "/api/v2/x", 3),
            ("a.example", "/apix", 2),
            ("[::1]:80", "/api/v2/x", 4),
            ("", "*", 1),
        ];
        for (host, path, app) in cases {
            assert_eq!(all.find(80, host, path).map(|found| found.app), Some(AppId(app)), "{host} {path}");
        }
        assert_eq!(all.find(81, "a.example", "/"), None);
    }

    #[test]
    fn what_is_gone_is_found_no_more() {
        let mut all = entrances();
        all.update(false, Vec::new(), &[AppId(1)]);
        assert_eq!(all.find(80, "b.example", "/"), None);
        assert_eq!(all.ports().collect::<Vec<_>>(), [(80, Protocol::Http)]);
        all.update(true, Vec::new(), &[]);
        assert_eq!(all.ports().count(), 0);
    }
}
