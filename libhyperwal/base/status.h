/*
 * base/status.h - what a function that can fail returns
 *
 * 0 is done, a positive value is a normal outcome with a name, a negative one is a failure.  What
 * the caller does differently decides which codes exist; base/error.h carries the words.
 */
#ifndef HW_BASE_STATUS_H
#define HW_BASE_STATUS_H

enum hw_status {
    HW_OK = 0,
    HW_END = 1,         /* nothing more, for now */
    HW_AGAIN = 2,       /* would have to wait: queue full, lock held */
    HW_ENOMEM = -1,     /* retry later */
    HW_EIO = -2,        /* os_errno says which; the object may be poisoned */
    HW_ENOSPC = -3,     /* make room and retry */
    HW_ECORRUPT = -4,   /* our files fail a check: restore or resync */
    HW_EPROTOCOL = -5,  /* the peer broke the protocol: drop it */
    HW_EPROOF = -6,     /* hash or signature wrong: drop it and tell the operator */
    HW_EFORK = -7,      /* two histories: an operator decides */
    HW_EVERSION = -8,   /* a newer format: upgrade */
    HW_EBUSY = -9,      /* another process owns it */
    HW_ELIMIT = -10,    /* larger than a documented limit */
    HW_EMISUSE = -11,   /* the caller broke the contract */
    HW_EBROKEN = -12,   /* poisoned by an earlier failure: close and reopen */
    HW_ENOTFOUND = -13, /* the seq, time, name or file asked for does not exist */
    HW_EPRUNED = -14,   /* it existed, and its bytes were given up */
    HW_EEXIST = -15,    /* it is there already */
    HW_EREADONLY = -16, /* this object may not be written */
    HW_ETIMEOUT = -17,  /* the wait ended first */
    HW_EMISSING = -18,  /* a mirror has not got it yet: somebody else may have */
    HW_EREFUSED = -19,  /* the other side does not let us */
};

#define HW_MUST_CHECK __attribute__((warn_unused_result))
#define HW_DEBUG_ONLY __attribute__((unused)) /* looked at by assertions alone */

/* The name of a status, as in "HW_EIO"; never NULL. */
const char *hw_status_name(enum hw_status status);

#endif
