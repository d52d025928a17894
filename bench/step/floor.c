/* The floors: the bare fp32 update over pointers found beforehand, 20 bytes an element, and the whole step,
 * which reads every gradient once more for the norm and moves an average along: 32.
 *
 * Left out, so that no optimizer can reach it on small tensors: finding gradients, checking shapes, strides
 * and dtypes, the schedule, writing lr and momentum to the groups, version counters, step hooks.
 */
#include <math.h>
#include <stdint.h>

typedef struct {
  float* parameter;
  const float* gradient;
  float* momentum_buffer;
  float* average; /* of the whole step alone, as what is marked so below */
  int64_t length;
} piece;

typedef struct {
  const piece* pieces;
  const int64_t* first; /* thread t owns the pieces first[t] to first[t + 1] */
  float lr, momentum, weight_decay;
  float scale, coefficient, average_weight; /* whole step; the coefficient is found at each step */
  double max_norm;                          /* whole step */
  double* squares;                          /* whole step: a sum for each thread */
} job;

typedef void (*range_function)(int64_t begin, int64_t end, void* context);
typedef int32_t (*parallel_for)(int64_t begin, int64_t end, int64_t grain, range_function, void* context);

static void update(const piece* at, const job* job) {
  float* restrict p = at->parameter;
  const float* restrict g = at->gradient;
  float* restrict m = at->momentum_buffer;
  for (int64_t i = 0; i < at->length; ++i) {
    const float decayed = fmaf(job->weight_decay, p[i], g[i]);
    m[i] = job->momentum * m[i] + decayed; /* -ffp-contract=off rounds the product, as torch does */
    p[i] = fmaf(-job->lr, m[i], p[i]);
  }
}

static void update_whole(const piece* at, const job* job) {
  float* restrict p = at->parameter;
  const float* restrict g = at->gradient;
  float* restrict m = at->momentum_buffer;
  float* restrict a = at->average;
  for (int64_t i = 0; i < at->length; ++i) {
    const float decayed = fmaf(job->weight_decay, p[i], job->coefficient * (job->scale * g[i]));
    m[i] = job->momentum * m[i] + decayed;
    p[i] = fmaf(-job->lr, m[i], p[i]);
    a[i] = fmaf(job->average_weight, p[i] - a[i], a[i]);
  }
}

/* Sums side by side, so that the compiler may use whole registers. */
static double squares(const piece* at, const job* job) {
  enum { SIDE = 32 };
  double sums[SIDE] = {0};
  int64_t i = 0;
  for (; i + SIDE <= at->length; i += SIDE)
    for (int64_t j = 0; j < SIDE; ++j) {
      const double g = job->scale * at->gradient[i + j];
      sums[j] += g * g;
    }
  for (; i < at->length; ++i) {
    const double g = job->scale * at->gradient[i];
    sums[0] += g * g;
  }
  double sum = 0;
  for (int64_t j = 0; j < SIDE; ++j) sum += sums[j];
  return sum;
}

static void run_threads(int64_t begin, int64_t end, void* context) {
  const job* const job_ = context;
  for (int64_t at = job_->first[begin]; at < job_->first[end]; ++at) update(&job_->pieces[at], job_);
}

static void run_whole(int64_t begin, int64_t end, void* context) {
  const job* const job_ = context;
  for (int64_t at = job_->first[begin]; at < job_->first[end]; ++at) update_whole(&job_->pieces[at], job_);
}

static void run_squares(int64_t begin, int64_t end, void* context) {
  const job* const job_ = context;
  for (int64_t thread = begin; thread < end; ++thread) {
    double sum = 0;
    for (int64_t at = job_->first[thread]; at < job_->first[thread + 1]; ++at) sum += squares(&job_->pieces[at], job_);
    job_->squares[thread] = sum;
  }
}

static int32_t run(range_function function, job* job_, int64_t threads, parallel_for threads_run) {
  if (threads > 1) return threads_run(0, threads, 1, function, job_);
  function(0, 1, job_);
  return 0;
}

/* threads: torch's own pool, handed in, so that two pools never wait for each other's spinning threads. */
int32_t floor_step(job* job_, int64_t threads, parallel_for threads_run) {
  return run(run_threads, job_, threads, threads_run);
}

int32_t floor_whole_step(job* job_, int64_t threads, parallel_for threads_run) {
  const int32_t failed = run(run_squares, job_, threads, threads_run);
  if (failed) return failed;
  double sum = 0;
  for (int64_t thread = 0; thread < threads; ++thread) sum += job_->squares[thread];
  job_->coefficient = (float)fmin(1.0, job_->max_norm / (sqrt(sum) + 1e-6));
  return run(run_whole, job_, threads, threads_run);
}
