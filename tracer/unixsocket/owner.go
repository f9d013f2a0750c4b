package unixsocket

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// coreDNSGroup is what CoreDNS of deploy/'s image runs as.
const coreDNSGroup = 65532

// leave leaves an owner as he is (chown(2)).
const leave = -1

// Owner is whose a socket is. The zero Owner is root.
type Owner struct{ UID, GID int }

// Mine is the user and group of this process.
var Mine = Owner{leave, leave}

// ParseOwner reads USER or USER:GROUP, by name or number. Without a group it is the
// user's own, where he is known here.
func ParseOwner(spec string) (Owner, error) {
	name, group, grouped := strings.Cut(spec, ":")
	if name == "" || grouped && group == "" {
		return Mine, fmt.Errorf("%q: expected USER or USER:GROUP, as 65532:65532", spec)
	}
	u, err := user.Lookup(name)
	if err != nil {
		u, err = user.LookupId(name)
	}
	if err != nil {
		u = &user.User{Uid: name, Gid: strconv.Itoa(leave)}
	}
	if grouped {
		u.Gid = group
		if g, err := user.LookupGroup(group); err == nil {
			u.Gid = g.Gid
		}
	}
	uid, err := strconv.ParseInt(u.Uid, 10, 32)
	if err != nil || uid < 0 {
		return Mine, fmt.Errorf("there is no user %q", name)
	}
	gid, err := strconv.ParseInt(u.Gid, 10, 32)
	if err != nil || gid < 0 && grouped {
		return Mine, fmt.Errorf("there is no group %q", group)
	}
	return Owner{int(uid), int(gid)}, nil
}

// DefaultOwner returns the default owner of the record socket: for root, root with the group
// as which the CoreDNS of deploy/ runs; for other users, themselves. Where root may not do
// that, the error says what is lost, and the socket is root's alone.
func DefaultOwner() (Owner, error) {
	if os.Geteuid() != 0 {
		return Mine, nil
	}
	o := Owner{0, coreDNSGroup}
	if err := o.Enter(); err != nil {
		return Mine, fmt.Errorf("a CoreDNS that is not root cannot send its records: %w; or choose with --listen-owner", err)
	}
	return o, nil
}

// Enter makes the process a member of the owner's group, so that it may give it a socket
// also later, without a capability (chown(2)). Another user's socket takes CAP_CHOWN.
func (o Owner) Enter() error {
	if o.GID == leave || o.GID == os.Getegid() {
		return nil
	}
	groups, err := os.Getgroups()
	if err != nil || slices.Contains(groups, o.GID) {
		return err
	}
	if err := syscall.Setgroups(append(groups, o.GID)); err != nil {
		return fmt.Errorf("group %d is none of this process (%w): run it with that as a supplementary group, or with CAP_SETGID", o.GID, err)
	}
	return nil
}

// give gives a socket's file to its owner. Nobody else can have replaced it: see folder.
func (o Owner) give(path string) error {
	if o.UID == os.Geteuid() {
		o.UID = leave
	}
	if o.UID == leave && o.GID == leave {
		return nil
	}
	err := unix.Fchownat(unix.AT_FDCWD, path, o.UID, o.GID, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%s: only a process with CAP_CHOWN may give it to user %d and group %d: start it with that, or choose with --listen-owner", filepath.Base(path), o.UID, o.GID)
	}
	return err
}
