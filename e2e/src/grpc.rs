//! As much of gRPC as the test server answers and a load asks: one call with one message each way. The messages are JSON,
//! which the content type says; a data plane looks at none of it.

/// The service and method.
pub const PATH: &str = "/tidegate.test.Server/Answer";
/// The content type of both messages.
pub const CONTENT_TYPE: &str = "application/grpc+json";

/// A message as it goes over the wire: not compressed, with its length.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut frame = vec![0];
    frame.extend(length.to_be_bytes());
    frame.extend(message);
    frame
}

/// The message in a frame; `None` when it is not whole.
pub fn message(frame: &[u8]) -> Option<&[u8]> {
    let (head, message) = frame.split_at_checked(5)?;
    let length = u32::from_be_bytes(head[1..].try_into().ok()?);
    (head[0] == 0 && usize::try_from(length) == Ok(message.len())).then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_and_half_of_it_does_not() {
        let frame = framed(b"{}");
        assert_eq!(frame, [0, 0, 0, 0, 2, b'{', b'}']);
        assert_eq!(message(&frame), Some(b"{}".as_slice()));
        for cut in 0..frame.len() {
            assert_eq!(message(&frame[..cut]), None, "{cut}");
        }
    }
}
