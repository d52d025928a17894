/* The floor: the bare fp32 update over pointers found beforehand, 20 bytes an element.
 *
 * Left out, so that no optimizer can reach it on small tensors: finding gradients, checking shapes, strides
 * and dtypes, the schedule, writing lr and momentum to the groups, version counters, step hooks.
 */
#include <math.h>
#include <stdint.h>

typedef struct {
    float *parameter;
    const float *gradient;
    float *momentum_buffer;
    int64_t length;
} piece;

typedef struct {
    const piece *pieces;
    const int64_t *first; /* thread t owns the pieces first[t] to first[t + 1] */
    float lr, momentum, weight_decay;
} job;

typedef void (*range_function)(int64_t begin, int64_t end, void *context);
typedef int32_t (*parallel_for)(int64_t begin, int64_t end, int64_t grain, range_function, void *context);

static void update(const piece *at, const job *job)
{
    float *restrict p = at->parameter;
    const float *restrict g = at->gradient;
    float *restrict m = at->momentum_buffer;
    for (int64_t i = 0; i < at->length; ++i) {
        const float decayed = fmaf(job->weight_decay, p[i], g[i]);
        m[i] = job->momentum * m[i] + decayed; /* -ffp-contract=off rounds the product, as torch does */
        p[i] = fmaf(-job->lr, m[i], p[i]);
    }
}

static void run_threads(int64_t begin, int64_t end, void *context)
{
    const job *const job_ = context;
    for (int64_t at = job_->first[begin]; at < job_->first[end]; ++at)
        update(&job_->pieces[at], job_);
}

/* threads: torch's own pool, handed in, so that two pools never wait for each other's spinning threads. */
int32_t floor_step(job *job_, int64_t threads, parallel_for threads_run)
{
    if (threads > 1)
        return threads_run(0, threads, 1, run_threads, job_);
    run_threads(0, 1, job_);
    return 0;
}
