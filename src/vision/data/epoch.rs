//! The batches of an epoch, made ahead by threads.
//!
//! Of n workers, each makes every n-th batch and sends it through a bounded channel of its own, and the channels are read in
//! turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use super::Batch;
use super::pipeline::Pipeline;
use crate::Error;

/// An iterator over the batches of an epoch. It ends after an error. Dropping it stops the workers.
#[derive(Debug)]
pub struct Epoch {
    work: Work,
    workers: Vec<Worker>,
    /// Number of the next batch.
    next: usize,
}

#[derive(Clone, Debug)]
struct Work {
    pipeline: Arc<Pipeline>,
    epoch: u64,
    order: Arc<[usize]>,
    first: usize,
    /// After the last batch.
    end: usize,
    stop: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Worker {
    batches: Receiver<Result<Batch, Error>>,
    thread: JoinHandle<()>,
}

impl Epoch {
    pub(super) fn start(pipeline: Arc<Pipeline>, epoch: u64, first: usize) -> Self {
        let end = pipeline.batches();
        let work = Work {
            order: pipeline.order(epoch).into(),
            epoch,
            first,
            end,
            stop: Arc::default(),
            pipeline,
        };
        let options = &work.pipeline.options;
        let count = options.workers.min(end.saturating_sub(first));
        // A worker holds one batch while the channel is full.
        let queue = options.prefetch_factor.saturating_sub(1);
        let start = |worker: usize| {
            let (sender, batches) = sync_channel(queue);
            let work = work.clone();
            let thread = thread::Builder::new().name(format!("loader {worker}"));
            let thread = thread.spawn(move || work.every(count, worker, &sender));
            // Without any worker the batches are made in the caller's thread.
            Some(Worker {
                batches,
                thread: thread.ok()?,
            })
        };
        let started: Option<Vec<Worker>> = (0..count).map(start).collect();
        Epoch {
            workers: started.unwrap_or_default(),
            work,
            next: first,
        }
    }

    /// The next batch; it may be empty.
    fn receive(&mut self) -> Option<Result<Batch, Error>> {
        if self.next >= self.work.end {
            return None;
        }
        let index = self.next;
        self.next += 1;
        let Some(turn) = (index - self.work.first).checked_rem(self.workers.len()) else {
            return self.work.batch(index).transpose();
        };
        Some(self.workers[turn].batches.recv().unwrap_or_else(|_| {
            Err(Error::Images {
                path: self.work.pipeline.samples.path.clone(),
                problem: format!("a thread stopped while it made batch {index}"),
            })
        }))
    }

    fn stop(&mut self) {
        self.work.stop.store(true, Ordering::Relaxed);
        for Worker { batches, thread } in self.workers.drain(..) {
            // Ends a worker that waits for space in the channel.
            drop(batches);
            // A panic has been reported as an error, or its batch is not needed.
            let _ = thread.join();
        }
    }
}

impl Work {
    /// Makes every `step`-th batch, until there is no receiver.
    fn every(&self, step: usize, offset: usize, sender: &SyncSender<Result<Batch, Error>>) {
        for index in (self.first + offset..self.end).step_by(step) {
            let Some(batch) = self.batch(index).transpose() else {
                return;
            };
            let failed = batch.is_err();
            if sender.send(batch).is_err() || failed {
                return;
            }
        }
    }

    fn batch(&self, index: usize) -> Result<Option<Batch>, Error> {
        self.pipeline
            .batch(self.epoch, index, &self.order, &self.stop)
    }
}

impl Iterator for Epoch {
    type Item = Result<Batch, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let result = self.receive()?;
            match result {
                Ok(batch) if batch.samples.is_empty() => {}
                Ok(batch) => return Some(Ok(batch)),
                Err(error) => {
                    self.next = self.work.end;
                    self.stop();
                    return Some(Err(error));
                }
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.work.end.saturating_sub(self.next)))
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        self.stop();
    }
}
