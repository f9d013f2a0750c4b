package main

import (
	"bytes"
	"encoding/json"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	oci "github.com/opencontainers/image-spec/specs-go/v1"
)

// index is one with bytes of its own.
type index struct {
	inner
	raw []byte
}

// inner has the method ImageIndex, which a field of that name would hide.
type inner = v1.ImageIndex

// canonical writes an index as the types of the OCI's specification are written. Skopeo
// reads and writes it through them when it copies an image: other bytes would have
// another digest in the registry than the one that was printed.
func canonical(i v1.ImageIndex) (v1.ImageIndex, error) {
	raw, err := i.RawManifest()
	if err != nil {
		return nil, err
	}
	var parsed oci.Index
	if err := json.Unmarshal(raw, &parsed); err != nil {
		return nil, err
	}
	for n := range parsed.Manifests {
		parsed.Manifests[n].ArtifactType = "" // of images it is the media type of their configuration, which says nothing
	}
	if raw, err = json.Marshal(parsed); err != nil {
		return nil, err
	}
	return index{i, raw}, nil
}

// RawManifest returns the bytes.
func (i index) RawManifest() ([]byte, error) { return i.raw, nil }

// Size returns their number.
func (i index) Size() (int64, error) { return int64(len(i.raw)), nil }

// Digest returns their SHA-256.
func (i index) Digest() (v1.Hash, error) {
	digest, _, err := v1.SHA256(bytes.NewReader(i.raw))
	return digest, err
}
