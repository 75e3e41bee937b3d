#ifndef STUB_PTHREAD_H
#define STUB_PTHREAD_H
#include <signal.h>
#include <stub.h>
#include <time.h>

#if defined(__APPLE__)
typedef struct stub_thread *pthread_t;
typedef struct {
    long sig;
    char opaque[56];
} pthread_mutex_t;
#define PTHREAD_MUTEX_INITIALIZER                                                                  \
    {                                                                                              \
        .sig = 0x32aaaba7                                                                          \
    }
typedef struct {
    long sig;
    char opaque[40];
} pthread_cond_t;
typedef struct {
    long sig;
    char opaque[56];
} pthread_attr_t;
#elif defined(__NetBSD__)
typedef struct stub_thread *pthread_t;
typedef struct {
    void *opaque[6];
} pthread_mutex_t;
#define PTHREAD_MUTEX_INITIALIZER                                                                  \
    {                                                                                              \
        {                                                                                          \
            (void *)0x33330003                                                                     \
        }                                                                                          \
    }
typedef struct {
    void *opaque[5];
} pthread_cond_t;
typedef struct {
    void *opaque[2];
} pthread_attr_t;
#elif defined(__DragonFly__)
typedef struct stub_thread *pthread_t;
typedef struct stub_mutex *pthread_mutex_t;
#define PTHREAD_MUTEX_INITIALIZER NULL
typedef struct stub_cond *pthread_cond_t;
typedef struct stub_attr *pthread_attr_t;
#else
typedef struct stub_thread *pthread_t;
typedef struct {
    int32_t opaque[5];
} pthread_mutex_t;
#define PTHREAD_MUTEX_INITIALIZER                                                                  \
    {                                                                                              \
        {                                                                                          \
            0, 0, -42, -1, 0                                                                       \
        }                                                                                          \
    }
typedef struct {
    int32_t opaque[2];
    pthread_mutex_t *mutex;
    int32_t more[2];
} pthread_cond_t;
typedef struct stub_attr *pthread_attr_t;
#endif
typedef struct stub_mutexattr pthread_mutexattr_t;
typedef struct stub_condattr pthread_condattr_t;

int pthread_attr_destroy(pthread_attr_t *a);
int pthread_attr_init(pthread_attr_t *a);
int pthread_attr_setstacksize(pthread_attr_t *a, size_t len);
int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *ctx);
int pthread_join(pthread_t t, void **result);
int pthread_kill(pthread_t t, int signo);
pthread_t pthread_self(void);
int pthread_cond_broadcast(pthread_cond_t *c);
int pthread_cond_destroy(pthread_cond_t *c);
int pthread_cond_init(pthread_cond_t *c, const pthread_condattr_t *a);
int pthread_cond_signal(pthread_cond_t *c);
int pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *until)
    STUB_NETBSD(__pthread_cond_timedwait50);
int pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);
int pthread_mutex_destroy(pthread_mutex_t *m);
int pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *a);
int pthread_mutex_lock(pthread_mutex_t *m);
int pthread_mutex_unlock(pthread_mutex_t *m);
#if defined(__APPLE__)
int pthread_setname_np(const char *name);
#elif defined(__NetBSD__)
int pthread_setname_np(pthread_t t, const char *fmt, void *arg);
#endif

#endif
