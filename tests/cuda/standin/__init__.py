"""A libcuda.so.1 of our own, so that host code that drives a GPU can be tested without one.

libcuda.c has the functions of the driver and hands every call to a `Gpu`, which logs it and does what a driver would:
memory is memory of this process, and kernels run on the interpreter of PTX in tools/. exchange.c lets tensors on the
CPU pass for tensors on CUDA devices, though `tensor.device` still says cpu. Both must be there before clr_native is
imported, so tests of this kind run in a process of their own: files run_*.py in standin_runs/, which test_standin.py
starts with plugin.py as pytest's plugin.

    def test_one_launch_a_step(gpu, exchange):
        optimizer = ...                        # of tensors on the CPU, which lie on device 0
        optimizer.step()
        gpu.log.clear()
        optimizer.step()
        assert len(gpu.calls("cuLaunchKernel")) == 1

Modelled: contexts and their stack for each thread, who owns what, use after free, pinned and pageable memory, streams
and events, captures with the rules of each thread's capture mode, errors that stay with a context. `gpu.lazy = True`
makes a device that does nothing until it is waited for: pinned memory that is used again too early is seen.

Stricter than a driver: an operation on a stream needs the stream's context to be current; making and destroying streams
counts as a call that may wait, so it needs the relaxed mode during a capture; no order between a blocking stream and
the NULL stream; one call at a time, over all threads. Not modelled: waits of streams for events, forks within a
capture, peer access, managed memory.
"""
