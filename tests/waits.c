/* Preloaded before libfaketime: what waits goes straight to the C library. libfaketime 0.9.10 leaves
   the monotonic clock alone where it is told to, but not the waits that go by it: they fail, or spin
   in the middle of the interpreter's lock. Only what reads the time is left to be moved. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <time.h>

static void *libc(const char *name) {
    static void *handle;
    if (!handle) handle = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
    void *found = dlvsym(handle, name, "GLIBC_2.3.2");
    return found ? found : dlsym(handle, name);
}

#define PASS(type, name, parameters, arguments)              \
    type name parameters {                                   \
        static type (*real) parameters;                      \
        if (!real) real = (type (*) parameters) libc(#name); \
        return real arguments;                               \
    }

PASS(int, pthread_cond_init, (pthread_cond_t *c, const pthread_condattr_t *a), (c, a))
PASS(int, pthread_cond_destroy, (pthread_cond_t *c), (c))
PASS(int, pthread_cond_timedwait,
     (pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *t), (c, m, t))
PASS(int, clock_nanosleep,
     (clockid_t c, int f, const struct timespec *t, struct timespec *r), (c, f, t, r))
PASS(int, nanosleep, (const struct timespec *t, struct timespec *r), (t, r))
PASS(int, epoll_wait, (int e, struct epoll_event *v, int m, int t), (e, v, m, t))
PASS(int, epoll_pwait,
     (int e, struct epoll_event *v, int m, int t, const sigset_t *s), (e, v, m, t, s))
PASS(int, poll, (struct pollfd *p, nfds_t n, int t), (p, n, t))
PASS(int, ppoll,
     (struct pollfd *p, nfds_t n, const struct timespec *t, const sigset_t *s), (p, n, t, s))
PASS(int, select, (int n, fd_set *r, fd_set *w, fd_set *x, struct timeval *t), (n, r, w, x, t))
