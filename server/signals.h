// SIGTERM and SIGINT as events that one thread waits for, instead of
// interruptions of any thread.
#ifndef SPARSE_FFN_SERVER_SIGNALS_H_
#define SPARSE_FFN_SERVER_SIGNALS_H_

namespace sparse_ffn {

// Blocks both signals in this thread and those it starts later: call it before
// any other thread exists. Broken connections no longer raise SIGPIPE.
void BlockStopSignals();

// Waits for one of the two and returns its number.
int WaitForStopSignal();

// True when one of the two has come; takes it. Does not wait.
bool TakeStopSignal();

// From now on the next of the two ends the process at once, with code 128 + its
// number.
void ExitOnStopSignal();

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_SIGNALS_H_
