package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// kustomizeRequest asks for a kustomization to be changed and built.
type kustomizeRequest struct {
	Path string `json:"path"`
	// Root is a checkout on the disk to build in, for what needs one. Empty: files are asked for.
	Root             string            `json:"root"`
	NamePrefix       string            `json:"namePrefix"`
	NameSuffix       string            `json:"nameSuffix"`
	Namespace        string            `json:"namespace"`
	Images           []string          `json:"images"`
	Replicas         []types.Replica   `json:"replicas"`
	Labels           map[string]string `json:"labels"`
	ForceLabels      bool              `json:"forceLabels"`
	WithoutSelector  bool              `json:"withoutSelector"`
	IncludeTemplates bool              `json:"includeTemplates"`
	Annotations      map[string]string `json:"annotations"`
	ForceAnnotations bool              `json:"forceAnnotations"`
	Patches          []types.Patch     `json:"patches"`
	Components       []string          `json:"components"`
	IgnoreMissing    bool              `json:"ignoreMissingComponents"`
	BuildOptions     []string          `json:"buildOptions"`
	KubeVersion      string            `json:"kubeVersion"`
	APIVersions      []string          `json:"apiVersions"`
}

func (r *kustomizeRequest) changesAnything() bool {
	return r.NamePrefix != "" || r.NameSuffix != "" || r.Namespace != "" || len(r.Images) > 0 || len(r.Replicas) > 0 ||
		len(r.Labels) > 0 || len(r.Annotations) > 0 || len(r.Patches) > 0 || len(r.Components) > 0
}

func renderKustomize(files *hostFiles, req *kustomizeRequest) ([]json.RawMessage, []string, error) {
	options, warnings, err := buildOptions(req)
	if err != nil {
		return nil, nil, err
	}
	root := mount
	virtual := &repositoryFS{files: files, overlay: map[string][]byte{}, disk: filesys.MakeFsOnDisk()}
	var fsys filesys.FileSystem = virtual
	if req.Root != "" {
		root, fsys = req.Root, virtual.disk
	}
	dir := path.Join(root, req.Path)
	if req.changesAnything() {
		name, content, err := changed(fsys, dir, req)
		if err != nil {
			return nil, warnings, err
		}
		if rest, ok := inside(name); ok && req.Root == "" {
			virtual.overlay[rest] = content
		} else if err := os.WriteFile(name, content, 0o600); err != nil {
			return nil, warnings, err
		}
	}
	resources, err := krusty.MakeKustomizer(options).Run(fsys, dir)
	if err != nil {
		return nil, warnings, errors.New(strings.ReplaceAll(err.Error(), root+"/", ""))
	}
	manifests := make([]json.RawMessage, 0, resources.Size())
	for _, resource := range resources.Resources() {
		encoded, err := resource.MarshalJSON()
		if err != nil {
			return nil, warnings, fmt.Errorf("%s: %w", resource.CurId(), err)
		}
		manifests = append(manifests, encoded)
	}
	return manifests, warnings, nil
}

// changed returns the kustomization of a directory with the request's changes in it.
func changed(fsys filesys.FileSystem, dir string, req *kustomizeRequest) (string, []byte, error) {
	confirmed, rest, err := fsys.CleanedAbs(dir)
	if err != nil || rest != "" {
		return "", nil, fmt.Errorf("%s is not a directory", req.Path)
	}
	var name string
	for _, candidate := range konfig.RecognizedKustomizationFileNames() {
		if full := path.Join(string(confirmed), candidate); fsys.Exists(full) {
			if name != "" {
				return "", nil, fmt.Errorf("%s: found both %s and %s; expected one kustomization file", req.Path, path.Base(name), candidate)
			}
			name = full
		}
	}
	if name == "" {
		return "", nil, fmt.Errorf("%s: found none of %s", req.Path, strings.Join(konfig.RecognizedKustomizationFileNames(), ", "))
	}
	// The file may be a link; the overlay knows files by where they are.
	realDir, realName, err := fsys.CleanedAbs(name)
	if err != nil {
		return "", nil, err
	}
	content, err := fsys.ReadFile(name)
	if err != nil {
		return "", nil, err
	}
	k := &types.Kustomization{}
	if err := k.Unmarshal(content); err != nil {
		return "", nil, fmt.Errorf("%s: %w", path.Join(req.Path, path.Base(name)), err)
	}
	k.FixKustomization()
	if err := apply(k, req, fsys, string(confirmed)); err != nil {
		return "", nil, fmt.Errorf("%s: %w", path.Join(req.Path, path.Base(name)), err)
	}
	encoded, err := yaml.Marshal(k)
	return path.Join(string(realDir), realName), encoded, err
}

func apply(k *types.Kustomization, req *kustomizeRequest, fsys filesys.FileSystem, dir string) error {
	if req.NamePrefix != "" {
		k.NamePrefix = req.NamePrefix
	}
	if req.NameSuffix != "" {
		k.NameSuffix = req.NameSuffix
	}
	if req.Namespace != "" {
		k.Namespace = req.Namespace
	}
	for _, text := range req.Images {
		image, err := parseImage(text)
		if err != nil {
			return err
		}
		setImage(k, image)
	}
	for _, replica := range req.Replicas {
		if at := slices.IndexFunc(k.Replicas, func(r types.Replica) bool { return r.Name == replica.Name }); at >= 0 {
			k.Replicas[at] = replica
		} else {
			k.Replicas = append(k.Replicas, replica)
		}
	}
	if err := addLabels(k, req); err != nil {
		return err
	}
	for key, value := range req.Annotations {
		if _, exists := k.CommonAnnotations[key]; exists && !req.ForceAnnotations {
			return fmt.Errorf("annotation %s already in kustomization file; set forceCommonAnnotations to replace it", key)
		}
		if k.CommonAnnotations == nil {
			k.CommonAnnotations = map[string]string{}
		}
		k.CommonAnnotations[key] = value
	}
	k.Patches = append(k.Patches, req.Patches...)
	for _, component := range req.Components {
		if req.IgnoreMissing && !strings.Contains(component, "://") && !fsys.Exists(path.Join(dir, component)) {
			continue
		}
		if !slices.Contains(k.Components, component) {
			k.Components = append(k.Components, component)
		}
	}
	return nil
}

func addLabels(k *types.Kustomization, req *kustomizeRequest) error {
	if len(req.Labels) == 0 {
		return nil
	}
	for key := range req.Labels {
		_, exists := k.CommonLabels[key]
		for _, label := range k.Labels {
			_, also := label.Pairs[key]
			exists = exists || also
		}
		if exists && !req.ForceLabels {
			return fmt.Errorf("label %s already in kustomization file; set forceCommonLabels to replace it", key)
		}
	}
	if !req.WithoutSelector {
		if k.CommonLabels == nil {
			k.CommonLabels = map[string]string{}
		}
		for key, value := range req.Labels {
			k.CommonLabels[key] = value
		}
		return nil
	}
	for key := range req.Labels {
		delete(k.CommonLabels, key)
	}
	k.Labels = append(k.Labels, types.Label{Pairs: req.Labels, IncludeTemplates: req.IncludeTemplates})
	return nil
}

// parseImage reads [old=]name[:tag][@digest].
func parseImage(text string) (types.Image, error) {
	name, replacement, renamed := strings.Cut(text, "=")
	if !renamed {
		replacement = name
	}
	image := types.Image{}
	bare, digest, hasDigest := strings.Cut(replacement, "@")
	if hasDigest {
		image.Digest = digest
	}
	if at := strings.LastIndex(bare, ":"); at > strings.LastIndex(bare, "/") {
		image.NewTag, bare = bare[at+1:], bare[:at]
	}
	if renamed {
		image.Name, image.NewName = name, bare
	} else {
		image.Name = bare
	}
	if image.Name == "" || (image.NewName == "" && image.NewTag == "" && image.Digest == "") {
		return image, fmt.Errorf("image %q; expected [old=]name[:tag][@digest] with a new name, a tag or a digest", text)
	}
	if image.Digest != "" {
		// A digest says all; Kustomize refuses both.
		image.NewTag = ""
	}
	return image, nil
}

func setImage(k *types.Kustomization, image types.Image) {
	for i, existing := range k.Images {
		if existing.Name != image.Name {
			continue
		}
		if image.NewName == "" {
			image.NewName = existing.NewName
		}
		if image.NewTag == "" && image.Digest == "" {
			image.NewTag, image.Digest = existing.NewTag, existing.Digest
		}
		k.Images[i] = image
		return
	}
	k.Images = append(k.Images, image)
}

// buildOptions reads the flags of `kustomize build`.
func buildOptions(req *kustomizeRequest) (*krusty.Options, []string, error) {
	options := krusty.MakeDefaultOptions()
	var warnings []string
	helm := false
	command := "helm"
	for i := 0; i < len(req.BuildOptions); i++ {
		flag, value, hasValue := strings.Cut(req.BuildOptions[i], "=")
		argument := func() (string, error) {
			if hasValue {
				return value, nil
			}
			if i+1 >= len(req.BuildOptions) {
				return "", fmt.Errorf("kustomize build option %s needs a value", flag)
			}
			i++
			return req.BuildOptions[i], nil
		}
		switch flag {
		case "--load-restrictor", "--load_restrictor":
			value, err := argument()
			if err != nil {
				return nil, nil, err
			}
			switch value {
			case "LoadRestrictionsNone", "none":
				options.LoadRestrictions = types.LoadRestrictionsNone
			case "LoadRestrictionsRootOnly":
			default:
				return nil, nil, fmt.Errorf("kustomize build option %s: %q; expected LoadRestrictionsNone or LoadRestrictionsRootOnly", flag, value)
			}
		case "--reorder":
			value, err := argument()
			if err != nil {
				return nil, nil, err
			}
			options.Reorder = krusty.ReorderOption(value)
		case "--enable-managedby-label":
			options.AddManagedbyLabel = value != "false"
		case "--enable-helm":
			helm = value != "false"
		case "--helm-command":
			value, err := argument()
			if err != nil {
				return nil, nil, err
			}
			command = value
		default:
			warnings = append(warnings, fmt.Sprintf("kustomize build option %s is not known and has no effect", req.BuildOptions[i]))
		}
	}
	if helm {
		options.PluginConfig.HelmConfig = types.HelmConfig{
			Enabled: true, Command: command, KubeVersion: req.KubeVersion, ApiVersions: req.APIVersions,
		}
	}
	return options, warnings, nil
}
