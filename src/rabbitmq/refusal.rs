//! What RabbitMQ says when it does not do what it is asked to.

use lapin::ErrorKind;

/// The user lacks a right.
pub(crate) const ACCESS_REFUSED: u16 = 403;
/// Something there, or a limit, does not allow it.
pub(crate) const PRECONDITION_FAILED: u16 = 406;

/// What RabbitMQ answered, if it did.
pub(crate) fn code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

/// Whether RabbitMQ will say the same however often it is asked: it lacks a right, or what it was given is out of its bounds.
/// Anything else may be another time: connections come back, queues are made again, locks are released.
pub(crate) fn is_refusal(error: &lapin::Error) -> bool {
    matches!(code(error), Some(ACCESS_REFUSED | PRECONDITION_FAILED))
}
