//! What commands print: a line for each thing tried, as soon as it was.

use super::{
    exit::Failure,
    output::{print, print_line},
};

/// Lines on stdout, and what failed so far.
#[derive(Default)]
pub(crate) struct Report {
    failed: Vec<&'static str>,
}

impl Report {
    /// Prints the result of a part; `advice` completes a failure that names no remedy itself.
    pub(crate) fn line(&mut self, part: &'static str, result: Result<(), String>, advice: &str) {
        let text = match result {
            Ok(()) => format!("ok      {part}"),
            Err(problem) => {
                self.failed.push(part);
                let advice = if advice.is_empty() { String::new() } else { format!(" ({advice})") };
                format!("FAILED  {part}: {problem}{advice}")
            }
        };
        print_line(&text);
    }

    /// What is as it should be, and would fail nothing if it were not.
    #[expect(clippy::unused_self, reason = "lines come from a report alone")]
    pub(crate) fn fine(&self, what: &str) {
        print_line(&format!("ok      {what}"));
    }

    /// What would be better otherwise; fails nothing.
    #[expect(clippy::unused_self, reason = "lines come from a report alone")]
    pub(crate) fn advise(&self, advice: &str) {
        print_line(&format!("advice  {advice}"));
    }

    /// What could not be tried from here.
    #[expect(clippy::unused_self, reason = "lines come from a report alone")]
    pub(crate) fn untried(&self, what: &str) {
        print_line(&format!("untried {what}"));
    }

    /// A text to copy, under a title.
    #[expect(clippy::unused_self, reason = "lines come from a report alone")]
    pub(crate) fn block(&self, title: &str, text: &str) {
        print(&format!("\n{title}:\n\n{text}\n\n"));
    }

    /// # Errors
    /// [`Failure::Unavailable`] when anything failed.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        if self.failed.is_empty() {
            Ok(())
        } else {
            Err(Failure::Unavailable(format!("could not serve: {}", self.failed.join(", "))))
        }
    }
}

/// Runs a command's work to its end.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Internal(format!("cannot start: {error}")))?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    Ok(result)
}
