/* What the threads need of the operating system: start, end, sleep until a word changes, wake.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef AYNI_SYSTEM_H
#define AYNI_SYSTEM_H

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#if !defined(_WIN32_WINNT)
#define _WIN32_WINNT 0x0602 /* WaitOnAddress: Windows 8. */
#endif
#include <windows.h>
#else
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>
#endif
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#endif
#include <stdatomic.h>
#include <stdint.h>

typedef _Atomic uint32_t word;

/* ---- Sleep: the same three functions on Linux (futex), Windows and elsewhere ---- */

#if defined(__linux__)

typedef struct {
    char unused;
} bed;

static inline int bed_open(bed *b) { (void)b; return 1; }
static inline void bed_close(bed *b) { (void)b; }
static inline void sleep_while(bed *b, word *w, uint32_t value) {
    (void)b;
    syscall(SYS_futex, w, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}
static inline void wake_all(bed *b, word *w) {
    (void)b;
    syscall(SYS_futex, w, FUTEX_WAKE_PRIVATE, 0x7fffffff, NULL, NULL, 0);
}

#elif defined(_WIN32)

typedef struct {
    char unused;
} bed;

static inline int bed_open(bed *b) { (void)b; return 1; }
static inline void bed_close(bed *b) { (void)b; }
static inline void sleep_while(bed *b, word *w, uint32_t value) {
    (void)b;
    WaitOnAddress((volatile void *)w, &value, sizeof value, INFINITE);
}
static inline void wake_all(bed *b, word *w) {
    (void)b;
    WakeByAddressAll((void *)w);
}

#else

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
} bed;

static inline int bed_open(bed *b) {
    if (pthread_mutex_init(&b->lock, NULL))
        return 0;
    if (pthread_cond_init(&b->changed, NULL)) {
        pthread_mutex_destroy(&b->lock);
        return 0;
    }
    return 1;
}
static inline void bed_close(bed *b) {
    pthread_cond_destroy(&b->changed);
    pthread_mutex_destroy(&b->lock);
}
static inline void sleep_while(bed *b, word *w, uint32_t value) {
    pthread_mutex_lock(&b->lock);
    while (atomic_load(w) == value)
        pthread_cond_wait(&b->changed, &b->lock);
    pthread_mutex_unlock(&b->lock);
}
/* The word was changed before; who holds the lock and saw the old word is in its wait by now. */
static inline void wake_all(bed *b, word *w) {
    (void)w;
    pthread_mutex_lock(&b->lock);
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
}

#endif

/* ---- Threads, time, and the process ---- */

#if defined(_WIN32)

typedef HANDLE thread_handle;
typedef DWORD thread_result;
#define THREAD_CALL WINAPI

static inline int thread_start(thread_handle *handle, LPTHREAD_START_ROUTINE run, void *argument) {
    *handle = CreateThread(NULL, 1 << 20, run, argument, 0, NULL);
    return *handle != NULL;
}
static inline void thread_join(thread_handle handle) {
    WaitForSingleObject(handle, INFINITE);
    CloseHandle(handle);
}
static inline int64_t time_ns(void) {
    LARGE_INTEGER count, frequency;
    QueryPerformanceCounter(&count);
    QueryPerformanceFrequency(&frequency);
    return (int64_t)((double)count.QuadPart * 1e9 / (double)frequency.QuadPart);
}
static inline int64_t process_id(void) { return (int64_t)GetCurrentProcessId(); }

#else

typedef pthread_t thread_handle;
typedef void *thread_result;
#define THREAD_CALL

#define STACK_BYTES (1 << 20) /* Some systems give a thread 128 KiB, which is too little. */

/* A thread takes over the caller's scheduling policy, so it is as polite as the caller; signals are
 * left to the caller's thread, where Python expects them. */
static inline int thread_start(thread_handle *handle, void *(*run)(void *), void *argument) {
    sigset_t all, before;
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes))
        return 0;
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(handle, &attributes, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return error == 0;
}
static inline void thread_join(thread_handle handle) { pthread_join(handle, NULL); }
static inline int64_t time_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}
static inline int64_t process_id(void) { return (int64_t)getpid(); }

#endif

/* Tells the processor that this is a wait, so that its other hyper-thread may use the time. */
static inline void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb");
#endif
}

#endif
