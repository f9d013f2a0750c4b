package main

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"io"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

type file struct {
	path       string
	mode       int64
	content    []byte
	capability []byte // extended attribute security.capability; nil: none
}

// layer returns a layer with the file and its folders. Nothing in it tells when it
// was made.
func (f file) layer() (v1.Layer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	var dirs []string
	for dir := filepath.Dir(f.path); dir != "/"; dir = filepath.Dir(dir) {
		dirs = append([]string{dir}, dirs...)
	}
	for _, dir := range dirs {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir[1:] + "/", Mode: 0o755}); err != nil {
			return nil, err
		}
	}
	header := tar.Header{Typeflag: tar.TypeReg, Name: f.path[1:], Mode: f.mode, Size: int64(len(f.content))}
	if f.capability != nil {
		// As `tar --xattrs` writes it, and container runtimes unpack it.
		header.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": string(f.capability)}
	}
	if err := w.WriteHeader(&header); err != nil {
		return nil, err
	}
	if _, err := w.Write(f.content); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil },
		tarball.WithMediaType(types.OCILayer))
}

// netBindService is the value of security.capability that `setcap
// cap_net_bind_service=ep` writes: struct vfs_cap_data (Linux,
// include/uapi/linux/capability.h). The effective bit raises the capability without help
// of the program. It also makes execve fail with EPERM where the container may not have
// the capability at all.
func netBindService() []byte {
	const (
		revision2 = 0x02000000 // VFS_CAP_REVISION_2: 64 capabilities, of any user namespace
		effective = 0x000001   // VFS_CAP_FLAGS_EFFECTIVE
		bit       = 10         // CAP_NET_BIND_SERVICE
	)
	var b []byte
	// Permitted and inheritable, of the lower 32 capabilities and of the upper.
	for _, word := range []uint32{revision2 | effective, 1 << bit, 0, 0, 0} {
		b = binary.LittleEndian.AppendUint32(b, word)
	}
	return b
}
