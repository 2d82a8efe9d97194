//! The id of this process. The system is asked once, because a run is told of it and asking is a call of the kernel. Child
//! processes are programs of their own, so none of them inherits the answer.

use std::sync::LazyLock;

/// The id of this process.
pub(crate) fn own_pid() -> u32 {
    static PID: LazyLock<u32> = LazyLock::new(std::process::id);
    *PID
}

#[cfg(test)]
mod tests {
    use super::own_pid;

    #[test]
    fn the_answer_is_the_systems_however_often_somebody_asks() {
        assert_eq!([own_pid(), own_pid()], [std::process::id(); 2]);
    }
}
