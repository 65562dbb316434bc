//! Causes of failed connections, in words for operators: each library has its own.

use std::{error::Error, io};

use rustls::CertificateError;

/// Cause of a connection that could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConnectFault {
    #[error("host name not found")]
    NameNotFound,
    #[error("connection refused")]
    Refused,
    #[error("host or network unreachable")]
    Unreachable,
    #[error("no answer in time")]
    TimedOut,
    #[error("connection closed by the server")]
    Closed,
    /// Unix sockets only.
    #[error("no such socket")]
    NoSocket,
    #[error("permission denied")]
    NotPermitted,
    #[error("the server does not speak TLS")]
    NotTls,
    #[error("certificate not trusted")]
    CertificateNotTrusted,
    #[error("certificate is for another host name")]
    CertificateForAnotherName,
    #[error("certificate expired, or not valid yet")]
    CertificateExpired,
    #[error("certificate not accepted")]
    CertificateNotAccepted,
}

impl ConnectFault {
    /// Finds the cause in an error or its sources; `None`: none of these causes.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            let found = if let Some(error) = error.downcast_ref::<io::Error>() {
                Self::of_io(error)
            } else if let Some(error) = error.downcast_ref::<rustls::Error>() {
                Self::of_tls(error)
            } else {
                None
            };
            if found.is_some() {
                return found;
            }
            next = error.source();
        }
        None
    }

    /// True if the cause is the server's certificate.
    pub(crate) fn is_certificate_error(self) -> bool {
        matches!(
            self,
            Self::CertificateNotTrusted
                | Self::CertificateForAnotherName
                | Self::CertificateExpired
                | Self::CertificateNotAccepted
        )
    }

    fn of_io(error: &io::Error) -> Option<Self> {
        if let Some(inner) = error.get_ref() {
            let found = match inner.downcast_ref::<rustls::Error>() {
                Some(error) => Self::of_tls(error),
                None => Self::of(inner),
            };
            if found.is_some() {
                return found;
            }
        }
        // Errors of `getaddrinfo` have no separate kind.
        if error.to_string().starts_with(LOOKUP) {
            return Some(Self::NameNotFound);
        }
        Some(match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Unreachable,
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Self::Closed,
            io::ErrorKind::NotFound => Self::NoSocket,
            io::ErrorKind::PermissionDenied => Self::NotPermitted,
            _ => return None,
        })
    }

    fn of_tls(error: &rustls::Error) -> Option<Self> {
        Some(match error {
            rustls::Error::InvalidMessage(_) => Self::NotTls,
            rustls::Error::InvalidCertificate(error) => match error {
                CertificateError::UnknownIssuer => Self::CertificateNotTrusted,
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => {
                    Self::CertificateForAnotherName
                }
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Self::CertificateExpired,
                _ => Self::CertificateNotAccepted,
            },
            _ => return None,
        })
    }

    /// Finds the cause in the `Debug` text of an [`io::Error`] or a [`rustls::Error`]: fred 10.1 passes on only that.
    pub(crate) fn of_debug_text(text: &str) -> Option<Self> {
        const SIGNS: [(&str, ConnectFault); 16] = [
            (LOOKUP, ConnectFault::NameNotFound),
            ("Failed to resolve", ConnectFault::NameNotFound),
            ("InvalidMessage(", ConnectFault::NotTls),
            ("UnknownIssuer", ConnectFault::CertificateNotTrusted),
            ("NotValidForName", ConnectFault::CertificateForAnotherName),
            ("InvalidCertificate(Expired", ConnectFault::CertificateExpired),
            ("InvalidCertificate(NotValidYet", ConnectFault::CertificateExpired),
            ("InvalidCertificate(", ConnectFault::CertificateNotAccepted),
            ("ConnectionRefused", ConnectFault::Refused),
            ("HostUnreachable", ConnectFault::Unreachable),
            ("NetworkUnreachable", ConnectFault::Unreachable),
            ("TimedOut", ConnectFault::TimedOut),
            ("UnexpectedEof", ConnectFault::Closed),
            ("ConnectionReset", ConnectFault::Closed),
            ("BrokenPipe", ConnectFault::Closed),
            ("Connection closed", ConnectFault::Closed),
        ];
        SIGNS.iter().find(|(sign, _)| text.contains(sign)).map(|(_, fault)| *fault)
    }
}

/// Prefix of the standard library's error for a name that cannot be resolved.
const LOOKUP: &str = "failed to lookup address information";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_errors_and_their_debug_texts_have_the_same_cause() {
        let refused = io::Error::from_raw_os_error(111);
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let self_signed = rustls::Error::InvalidCertificate(CertificateError::BadEncoding);
        let expired = rustls::Error::InvalidCertificate(CertificateError::Expired);
        let plain = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        let lookup = format!("{LOOKUP}: Name or service not known");
        for (error, expected) in [
            (refused, ConnectFault::Refused),
            (io::Error::from_raw_os_error(101), ConnectFault::Unreachable),
            (io::Error::from_raw_os_error(113), ConnectFault::Unreachable),
            (io::Error::from_raw_os_error(110), ConnectFault::TimedOut),
            (io::Error::from_raw_os_error(104), ConnectFault::Closed),
            (io::ErrorKind::UnexpectedEof.into(), ConnectFault::Closed),
            (io::Error::other(lookup), ConnectFault::NameNotFound),
            (
                io::Error::new(io::ErrorKind::InvalidData, unknown),
                ConnectFault::CertificateNotTrusted,
            ),
            (io::Error::new(io::ErrorKind::InvalidData, expired), ConnectFault::CertificateExpired),
            (
                io::Error::new(io::ErrorKind::InvalidData, self_signed),
                ConnectFault::CertificateNotAccepted,
            ),
            (io::Error::new(io::ErrorKind::InvalidData, plain), ConnectFault::NotTls),
        ] {
            let text = format!("{error:?}");
            assert_eq!(ConnectFault::of_debug_text(&text), Some(expected), "{text}");
            assert_eq!(ConnectFault::of(&error), Some(expected), "{text}");
        }
        assert_eq!(ConnectFault::of(&io::Error::other("else")), None);
    }
}
