//! The resources of the target's account.

/// Most resources that are remembered: further ones get nothing to do.
pub const TARGETS_MAX: usize = 64;

/// Resources that are available, as their presence told.
#[derive(Default)]
pub struct Targets(Vec<Target>);

struct Target {
    resource: String,
    /// It may be gone: what was sent to it came back.
    is_doubted: bool,
}

impl Targets {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A resource is there.
    pub fn appear(&mut self, resource: &str) {
        if let Some(known) = self.find(resource) {
            known.is_doubted = false;
        } else if self.0.len() < TARGETS_MAX {
            self.0.push(Target {
                resource: resource.to_owned(),
                is_doubted: false,
            });
        }
    }

    /// A resource is gone.
    pub fn leave(&mut self, resource: &str) {
        self.0.retain(|target| target.resource != resource);
    }

    /// All are gone, or nobody knows; which they were.
    pub fn clear(&mut self) -> Vec<String> {
        let gone = std::mem::take(&mut self.0).into_iter();
        gone.map(|target| target.resource).collect()
    }

    /// A resource may be gone. It is left out while there are others, until its next presence: it
    /// may as well have said so itself, about a payload it does not know, and a stranger who sends
    /// such payloads shall not put everybody out.
    pub fn doubt(&mut self, resource: &str) {
        if let Some(known) = self.find(resource) {
            known.is_doubted = true;
        }
    }

    /// One of those with the least `load`, at random, but for some.
    ///
    /// Chance alone gives a resource that hangs its share until it is gone; in turns, clients that
    /// send a cheap request before each dear one would give all the dear ones to the same resource.
    pub fn pick(&self, but: &[String], load: impl Fn(&str) -> usize, random: u64) -> Option<&str> {
        let others = self.0.iter().filter(|it| !but.contains(&it.resource));
        let rank = |target: &Target| (target.is_doubted, load(&target.resource));
        let ranked: Vec<_> = others.map(|target| (rank(target), target)).collect();
        let best = ranked.iter().map(|(rank, _)| *rank).min()?;
        let mut best = ranked.iter().filter(|(rank, _)| *rank == best);
        let n_best = best.clone().count();
        let chosen = usize::try_from(random % n_best as u64).unwrap_or_default();
        best.nth(chosen).map(|(_, target)| target.resource.as_str())
    }

    fn find(&mut self, resource: &str) -> Option<&mut Target> {
        self.0.iter_mut().find(|it| it.resource == resource)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(resources: &[&str]) -> Targets {
        let mut targets = Targets::default();
        resources.iter().for_each(|it| targets.appear(it));
        targets
    }

    /// Which are picked, whatever the chance.
    fn picks(targets: &Targets, but: Option<&str>, load: impl Fn(&str) -> usize) -> String {
        let but: Vec<String> = but.into_iter().map(str::to_owned).collect();
        let picked = (0..6).filter_map(|random| targets.pick(&but, &load, random));
        let mut picked: Vec<_> = picked.collect();
        picked.sort_unstable();
        picked.dedup();
        picked.concat()
    }

    #[test]
    fn the_least_loaded_are_picked_at_random() {
        let targets = targets(&["a", "b", "c"]);
        assert_eq!(picks(&targets, None, |_| 0), "abc");
        assert_eq!(picks(&targets, Some("a"), |_| 0), "bc");
        assert_eq!(picks(&targets, None, |it| usize::from(it == "b")), "ac");
        assert_eq!(picks(&targets, None, |it| usize::from(it != "b")), "b");
        assert_eq!(picks(&Targets::default(), None, |_| 0), "");
    }

    #[test]
    fn who_is_doubted_is_left_out_while_there_are_others() {
        let mut targets = targets(&["a", "b"]);
        targets.doubt("a");
        assert_eq!(picks(&targets, None, |it| usize::from(it == "b")), "b");
        targets.doubt("b");
        assert_eq!(picks(&targets, None, |_| 0), "ab");
        targets.appear("a");
        assert_eq!(picks(&targets, None, |_| 0), "a");
        assert_eq!(targets.len(), 2);
        targets.leave("a");
        assert_eq!(picks(&targets, Some("b"), |_| 0), "");
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut targets = Targets::default();
        for n in 0..=TARGETS_MAX {
            targets.appear(&n.to_string());
        }
        assert_eq!(targets.len(), TARGETS_MAX);
        assert_eq!(targets.clear().len(), TARGETS_MAX);
        assert!(targets.is_empty());
    }
}
