//! Report of `check` and `doctor`: one line per test, printed when the test ends.

use super::{
    exit::Failure,
    output::{print, print_line},
};

/// Writes lines to stdout and collects the parts that failed.
#[derive(Default)]
pub(crate) struct Report {
    failed: Vec<&'static str>,
}

impl Report {
    /// Prints the result of a test. `fix` is added to a failure that does not name a remedy itself.
    pub(crate) fn line(&mut self, part: &'static str, result: Result<(), String>, fix: &str) {
        let text = match result {
            Ok(()) => format!("ok      {part}"),
            Err(problem) => {
                self.failed.push(part);
                let fix = if fix.is_empty() { String::new() } else { format!(". Fix: {fix}") };
                format!("FAIL    {part}: {problem}{fix}")
            }
        };
        print_line(&text);
    }

    /// Prints a passed test that does not change the exit code.
    #[expect(clippy::unused_self, reason = "lines come from a report alone")]
    pub(crate) fn pass(&self, test: &str) {
        print_line(&format!("ok      {test}"));
    }

    /// Prints a recommendation. Does not change the exit code.
    #[expect(clippy::unused_self, reason = "lines come from a report alone")]
    pub(crate) fn warn(&self, advice: &str) {
        print_line(&format!("warning {advice}"));
    }

    /// Prints a test that cannot be run from here.
    #[expect(clippy::unused_self, reason = "lines come from a report alone")]
    pub(crate) fn skip(&self, test: &str) {
        print_line(&format!("skipped {test}"));
    }

    /// Prints a text to copy, under a title.
    #[expect(clippy::unused_self, reason = "lines come from a report alone")]
    pub(crate) fn block(&self, title: &str, text: &str) {
        print(&format!("\n{title}:\n\n{text}\n\n"));
    }

    /// # Errors
    /// [`Failure::Unavailable`] when a test failed.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        if self.failed.is_empty() {
            Ok(())
        } else {
            Err(Failure::Unavailable(format!("Not ready: {}", self.failed.join(", "))))
        }
    }
}

/// Runs the work of a command on a runtime of its own.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Internal(format!("cannot start: {error}")))?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    Ok(result)
}
