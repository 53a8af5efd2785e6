//! Who calls: read from the certificate that TLS has verified already.

use std::sync::Arc;

use bellows_core::ids::NodeId;
use rustls_pki_types::CertificateDer;
use tonic::{Request, Status};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The role in a certificate's common name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A person or a service.
    Operator {
        /// From the certificate.
        name: String,
    },
    /// An agent.
    Node(NodeId),
    /// Another controller of the group.
    Member(u64),
}

impl Caller {
    fn parse(common_name: &str) -> Option<Self> {
        let (kind, rest) = common_name.split_once(':')?;
        match kind {
            "operator" if !rest.is_empty() => Some(Self::Operator { name: rest.to_owned() }),
            "node" => rest.parse().ok().map(|id| Self::Node(NodeId(id))),
            "member" => rest.parse().ok().map(Self::Member),
            _ => None,
        }
    }

    /// For the log and the audit.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Operator { name } => name.clone(),
            Self::Node(node) => format!("node {node}"),
            Self::Member(id) => format!("member {id}"),
        }
    }
}

/// Who calls, or a refusal that says what is missing.
pub(crate) fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    if let Some(caller) = request.extensions().get::<Caller>() {
        return Ok(caller.clone());
    }
    from_certificates(request.peer_certs())
}

fn from_certificates(certificates: Option<Arc<Vec<CertificateDer<'static>>>>) -> Result<Caller, Status> {
    let missing =
        || Status::unauthenticated("this call needs a client certificate; use the controller's credential.json");
    let certificates = certificates.ok_or_else(missing)?;
    let leaf = certificates.first().ok_or_else(missing)?;
    common_name(leaf).as_deref().and_then(Caller::parse).ok_or_else(|| {
        Status::unauthenticated("the client certificate bears no role of this cluster (operator, node or member)")
    })
}

fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let mut names = parsed.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?.to_owned();
    // Two names would let two readers see two roles.
    names.next().is_none().then_some(name)
}

/// An interceptor: only operators pass.
pub(crate) fn require_operator(mut request: Request<()>) -> Result<Request<()>, Status> {
    match caller(&request)? {
        caller @ Caller::Operator { .. } => {
            request.extensions_mut().insert(caller);
            Ok(request)
        }
        other => Err(Status::permission_denied(format!(
            "{} may not command the cluster; use an operator's credential.json",
            other.name()
        ))),
    }
}

/// An interceptor: anybody with a certificate of this cluster passes.
pub(crate) fn require_any(request: Request<()>) -> Result<Request<()>, Status> {
    caller(&request).map(|_| request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read_strictly() {
        assert_eq!(Caller::parse("operator:admin"), Some(Caller::Operator { name: "admin".to_owned() }));
        assert_eq!(Caller::parse("node:7"), Some(Caller::Node(NodeId(7))));
        assert_eq!(Caller::parse("member:1"), Some(Caller::Member(1)));
        for bad in
            ["", "admin", "operator:", "node:", "node:x", "node:-1", "node:4294967296", "Operator:admin", "root:1"]
        {
            assert_eq!(Caller::parse(bad), None, "{bad}");
        }
    }
}
