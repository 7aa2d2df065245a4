//! The columns: each peer in the release that this machine has, and FRR and BIRD in a newer one beside it.

use e2e::root::Root;
use e2e::{bird, frr, gobgp, openbgpd};

use crate::setup::Kind;

/// One peer in one release.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) kind: Kind,
    /// `None`: this machine's programs.
    pub(crate) root: Option<Root>,
    /// As its program says.
    version: String,
}

impl Column {
    /// Whoever is missing ends the run: a page without it would look complete.
    pub(crate) fn all() -> anyhow::Result<Vec<Self>> {
        let trixie = Root::trixie()?;
        let newer = |kind| Self::of(kind, Some(trixie.clone()));
        let own = |kind| Self::of(kind, None);
        Ok(vec![
            own(Kind::Frr)?,
            newer(Kind::Frr)?,
            own(Kind::Bird)?,
            newer(Kind::Bird)?,
            own(Kind::GoBgp)?,
            own(Kind::OpenBgpd)?,
        ])
    }

    fn of(kind: Kind, root: Option<Root>) -> anyhow::Result<Self> {
        let version = match kind {
            Kind::Frr => frr::version_of(root.as_ref()),
            Kind::Bird => bird::version_of(root.as_ref()),
            Kind::GoBgp => gobgp::version(),
            Kind::OpenBgpd => openbgpd::version(),
        };
        Ok(Self { kind, version: version?, root })
    }

    /// Such as `FRR 10.3`.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.kind.name(), self.version)
    }
}
