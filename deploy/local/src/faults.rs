//! What is wrong with the network, because somebody wanted it so: cut, slow, lossy; and the rules for `nft` that make it so.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::names::HostName;

/// How bad a host's link is, in both directions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slow {
    /// At most so many bits in a second.
    pub rate_bits: Option<u64>,
    /// Of a thousand packets so many are lost.
    pub loss_permille: Option<u16>,
}

/// Everything that is wrong with a cluster's network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    /// Hosts that hear nobody and are heard by nobody.
    pub alone: BTreeSet<HostName>,
    /// Pairs, the lesser name first, that do not hear each other.
    pub apart: BTreeSet<(HostName, HostName)>,
    /// Links that work badly.
    pub slow: BTreeMap<HostName, Slow>,
}

impl Faults {
    /// Nothing passes between these two; or between one and everybody.
    pub fn cut(&mut self, one: &HostName, other: Option<&HostName>) {
        match other {
            None => self.alone.insert(one.clone()),
            Some(other) => self.apart.insert((one.min(other).clone(), one.max(other).clone())),
        };
    }

    /// What is said anew replaces what was said before; what is not said stays.
    pub fn slow(&mut self, host: &HostName, how: Slow) {
        let before = self.slow.entry(host.clone()).or_default();
        before.rate_bits = how.rate_bits.or(before.rate_bits);
        before.loss_permille = how.loss_permille.or(before.loss_permille);
    }

    /// All is well again: with this host, or with everybody.
    pub fn heal(&mut self, host: Option<&HostName>) {
        let Some(host) = host else {
            *self = Self::default();
            return;
        };
        self.alone.remove(host);
        self.apart.retain(|(one, other)| one != host && other != host);
        self.slow.remove(host);
    }

    /// From whom this host is cut off; all, if nobody is named.
    pub fn cut_off(&self, host: &HostName) -> Option<Vec<&HostName>> {
        if self.alone.contains(host) {
            return Some(Vec::new());
        }
        let partner = |(one, other)| match (one == host, other == host) {
            (true, _) => Some(other),
            (_, true) => Some(one),
            _ => None,
        };
        let partners: Vec<_> = self.apart.iter().filter_map(|(one, other)| partner((one, other))).collect();
        (!partners.is_empty()).then_some(partners)
    }

    /// All rules of the wire, in place of those before, in one step.
    pub fn rules(&self) -> String {
        let mut rules = String::from("table bridge bellows\ndelete table bridge bellows\ntable bridge bellows {\n");
        rules.push_str("  chain forward {\n    type filter hook forward priority 0; policy accept;\n");
        for host in &self.alone {
            line(&mut rules, &format!("iifname \"{host}\" drop"));
            line(&mut rules, &format!("oifname \"{host}\" drop"));
        }
        for (one, other) in &self.apart {
            line(&mut rules, &format!("iifname \"{one}\" oifname \"{other}\" drop"));
            line(&mut rules, &format!("iifname \"{other}\" oifname \"{one}\" drop"));
        }
        for (host, loss) in self.slow.iter().filter_map(|(host, slow)| Some((host, slow.loss_permille?))) {
            line(&mut rules, &format!("iifname \"{host}\" numgen random mod 1000 < {loss} drop"));
            line(&mut rules, &format!("oifname \"{host}\" numgen random mod 1000 < {loss} drop"));
        }
        rules.push_str("  }\n}\n");
        rules
    }
}

fn line(rules: &mut String, rule: &str) {
    writeln!(rules, "    {rule}").expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> HostName {
        name.parse().expect("a name")
    }

    fn rules(faults: &Faults) -> Vec<String> {
        let text = faults.rules();
        let inner = text.lines().skip(5).map(str::trim).filter(|line| *line != "}");
        inner.map(str::to_owned).collect()
    }

    #[test]
    fn cuts_work_both_ways() {
        let mut faults = Faults::default();
        faults.cut(&host("n1"), None);
        faults.cut(&host("n3"), Some(&host("m1")));
        let expected = [
            "iifname \"n1\" drop",
            "oifname \"n1\" drop",
            "iifname \"m1\" oifname \"n3\" drop",
            "iifname \"n3\" oifname \"m1\" drop",
        ];
        assert_eq!(rules(&faults), expected);
        assert_eq!(faults.cut_off(&host("n1")), Some(Vec::new()));
        assert_eq!(faults.cut_off(&host("n3")), Some(vec![&host("m1")]));
        assert_eq!(faults.cut_off(&host("n2")), None);
    }

    #[test]
    fn a_second_word_about_a_slow_link_keeps_the_first() {
        let mut faults = Faults::default();
        faults.slow(&host("n1"), Slow { rate_bits: Some(1_000_000), loss_permille: None });
        faults.slow(&host("n1"), Slow { rate_bits: None, loss_permille: Some(50) });
        assert_eq!(faults.slow[&host("n1")], Slow { rate_bits: Some(1_000_000), loss_permille: Some(50) });
        assert_eq!(rules(&faults).len(), 2);
    }

    #[test]
    fn one_host_or_all_are_healed() {
        let mut faults = Faults::default();
        faults.cut(&host("n1"), Some(&host("n2")));
        faults.cut(&host("n3"), None);
        faults.slow(&host("n2"), Slow { rate_bits: Some(1), loss_permille: Some(1) });
        faults.heal(Some(&host("n2")));
        assert!(faults.apart.is_empty() && faults.slow.is_empty() && faults.alone.len() == 1);
        faults.heal(None);
        assert_eq!(rules(&faults), Vec::<String>::new());
    }
}
