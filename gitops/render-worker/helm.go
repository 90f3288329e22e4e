package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/loader/archive"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/engine"
	"helm.sh/helm/v4/pkg/ignore"
	release "helm.sh/helm/v4/pkg/release/v1"
	releaseutil "helm.sh/helm/v4/pkg/release/v1/util"
	"helm.sh/helm/v4/pkg/strvals"
	"sigs.k8s.io/yaml"
)

// helmRequest asks for a chart to be rendered.
type helmRequest struct {
	// Path of the chart in the repository. Empty with Chart.
	Path string `json:"path"`
	// Chart names a chart of a chart repository.
	Chart           *remoteChart `json:"chart"`
	ReleaseName     string       `json:"releaseName"`
	Namespace       string       `json:"namespace"`
	KubeVersion     string       `json:"kubeVersion"`
	APIVersions     []string     `json:"apiVersions"`
	Values          []namedText  `json:"values"`
	Set             []string     `json:"set"`
	SetString       []string     `json:"setString"`
	SetFile         []namedText  `json:"setFile"`
	SkipCRDs        bool         `json:"skipCrds"`
	SkipTests       bool         `json:"skipTests"`
	SkipSchema      bool         `json:"skipSchemaValidation"`
	PassCredentials bool         `json:"passCredentials"`
	Repositories    []repository `json:"repositories"`
	IgnoreMissing   bool         `json:"ignoreMissingValueFiles"`
}

// namedText is a file's content with the name to show in errors, or to set it under.
type namedText struct {
	Name string `json:"name"`
	Text string `json:"text"`
	// URL is where the text is, when it is not given.
	URL string `json:"url"`
	// InChart says that the text is a file of the chart with this name.
	InChart bool `json:"inChart"`
}

func renderHelm(files *hostFiles, req *helmRequest) ([]json.RawMessage, []string, error) {
	ch, err := loadChart(files, req)
	if err != nil {
		return nil, nil, err
	}
	values, err := mergeValues(files, ch, req)
	if err != nil {
		return nil, nil, err
	}
	switch ch.Metadata.Type {
	case "", "application":
	default:
		return nil, nil, fmt.Errorf("%s charts are not installable", ch.Metadata.Type)
	}
	if err := chartutil.ProcessDependencies(ch, values); err != nil {
		return nil, nil, fmt.Errorf("chart dependencies processing failed: %w", err)
	}
	capabilities := common.DefaultCapabilities.Copy()
	if req.KubeVersion != "" {
		version, err := common.ParseKubeVersion(req.KubeVersion)
		if err != nil {
			return nil, nil, fmt.Errorf("invalid kube version %q: %w", req.KubeVersion, err)
		}
		capabilities.KubeVersion = *version
	}
	capabilities.APIVersions = append(capabilities.APIVersions, req.APIVersions...)
	if wanted := ch.Metadata.KubeVersion; wanted != "" && !chartutil.IsCompatibleRange(wanted, capabilities.KubeVersion.String()) {
		return nil, nil, fmt.Errorf("chart requires kubeVersion: %s which is incompatible with Kubernetes %s", wanted, capabilities.KubeVersion.Version)
	}
	options := common.ReleaseOptions{Name: req.ReleaseName, Namespace: req.Namespace, Revision: 1, IsInstall: true}
	renderValues, err := util.ToRenderValuesWithSchemaValidation(ch, values, options, capabilities, req.SkipSchema)
	if err != nil {
		return nil, nil, err
	}
	var renderer engine.Engine
	rendered, err := renderer.Render(ch, renderValues)
	if err != nil {
		return nil, nil, err
	}
	for name := range rendered {
		if strings.HasSuffix(name, "NOTES.txt") {
			delete(rendered, name)
		}
	}
	hooks, manifests, err := releaseutil.SortManifests(rendered, nil, releaseutil.InstallOrder)
	if err != nil {
		return nil, nil, err
	}
	var documents []namedText
	if !req.SkipCRDs {
		for _, crd := range ch.CRDObjects() {
			documents = append(documents, split(crd.Filename, string(crd.File.Data))...)
		}
	}
	for _, manifest := range manifests {
		documents = append(documents, namedText{Name: manifest.Name, Text: manifest.Content})
	}
	for _, hook := range hooks {
		if req.SkipTests && slices.Contains(hook.Events, release.HookTest) {
			continue
		}
		documents = append(documents, namedText{Name: hook.Path, Text: hook.Manifest})
	}
	var out []json.RawMessage
	for _, document := range documents {
		encoded, err := yaml.YAMLToJSON([]byte(document.Text))
		if err != nil {
			return nil, nil, fmt.Errorf("YAML parse error on %s: %w", document.Name, err)
		}
		if encoded = bytes.TrimSpace(encoded); len(encoded) > 0 && !bytes.Equal(encoded, []byte("null")) {
			out = append(out, encoded)
		}
	}
	return out, nil, nil
}

// split takes the documents of a file apart, in their order.
func split(name, content string) []namedText {
	parts := releaseutil.SplitManifests(content)
	keys := make([]string, 0, len(parts))
	for key := range parts {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b string) int {
		number := func(key string) int {
			n, _ := strconv.Atoi(key[strings.LastIndex(key, "-")+1:])
			return n
		}
		return number(a) - number(b)
	})
	out := make([]namedText, len(keys))
	for i, key := range keys {
		out[i] = namedText{Name: name, Text: parts[key]}
	}
	return out
}

// mergeValues lays the values over each other as Helm's flags do: files in their order, then single values.
func mergeValues(files *hostFiles, ch *chart.Chart, req *helmRequest) (map[string]any, error) {
	base := map[string]any{}
	for _, document := range req.Values {
		if document.URL != "" {
			files.remote = true
			text, err := fetch(document.URL)
			if err != nil {
				return nil, fmt.Errorf("values file %s: %w", document.Name, err)
			}
			document.Text = text
		}
		if document.InChart {
			at := slices.IndexFunc(ch.Raw, func(f *common.File) bool { return f.Name == path.Clean(document.Name) })
			if at < 0 && req.IgnoreMissing {
				continue
			}
			if at < 0 {
				return nil, fmt.Errorf("values file %s does not exist in the chart", document.Name)
			}
			document.Text = string(ch.Raw[at].Data)
		}
		values, err := loader.LoadValues(strings.NewReader(document.Text))
		if err != nil {
			return nil, fmt.Errorf("failed to parse %s: %w", document.Name, err)
		}
		base = loader.MergeMaps(base, values)
	}
	for _, text := range req.Set {
		if err := strvals.ParseInto(text, base); err != nil {
			return nil, fmt.Errorf("parameter %s: %w", text, err)
		}
	}
	for _, text := range req.SetString {
		if err := strvals.ParseIntoString(text, base); err != nil {
			return nil, fmt.Errorf("parameter %s: %w", text, err)
		}
	}
	for _, file := range req.SetFile {
		reader := func([]rune) (any, error) { return file.Text, nil }
		if err := strvals.ParseIntoFile(file.Name+"=file", base, reader); err != nil {
			return nil, fmt.Errorf("file parameter %s: %w", file.Name, err)
		}
	}
	return base, nil
}

// loadChart loads the chart with all that it depends on.
func loadChart(files *hostFiles, req *helmRequest) (*chart.Chart, error) {
	if req.Chart != nil {
		files.remote = true
		return pull(req.Chart.Repository, req.Chart.Name, req.Chart.Version, req)
	}
	return loadLocal(files, req.Path, req, 0)
}

// How deep charts may lend each other files.
const maxDepth = 16

func loadLocal(files *hostFiles, dir string, req *helmRequest, depth int) (*chart.Chart, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%s: charts depend on each other more than %d deep", dir, maxDepth)
	}
	all, err := files.tree(dir)
	if err != nil {
		return nil, err
	}
	rules := ignore.Empty()
	for _, f := range all {
		if f.name == ignore.HelmIgnore {
			if rules, err = ignore.Parse(bytes.NewReader(f.data)); err != nil {
				return nil, fmt.Errorf("%s/%s: %w", dir, f.name, err)
			}
		}
	}
	rules.AddDefaults()
	var kept []*archive.BufferedFile
	for _, f := range all {
		if !ignored(rules, f.name) {
			data := bytes.TrimPrefix(f.data, []byte{0xEF, 0xBB, 0xBF})
			kept = append(kept, &archive.BufferedFile{Name: f.name, Data: data})
		}
	}
	ch, err := loader.LoadFiles(kept)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return ch, addMissing(files, dir, ch, req, depth)
}

// ignored says whether the rules leave out a file, or a directory that it is in.
func ignored(rules *ignore.Rules, name string) bool {
	for at := range name {
		if name[at] == '/' && rules.Ignore(name[:at], fileInfo{name: path.Base(name[:at]), directory: true}) {
			return true
		}
	}
	return rules.Ignore(name, fileInfo{name: path.Base(name)})
}

// addMissing brings in the dependencies that the chart names and does not carry.
func addMissing(files *hostFiles, dir string, ch *chart.Chart, req *helmRequest, depth int) error {
	for _, dependency := range ch.Metadata.Dependencies {
		if slices.ContainsFunc(ch.Dependencies(), func(sub *chart.Chart) bool { return sub.Name() == dependency.Name }) {
			continue
		}
		var sub *chart.Chart
		var err error
		if local, ok := strings.CutPrefix(dependency.Repository, "file://"); ok {
			sub, err = loadLocal(files, path.Join(dir, local), req, depth+1)
		} else if dependency.Repository == "" {
			sub, err = loadLocal(files, path.Join(dir, "charts", dependency.Name), req, depth+1)
		} else {
			version := dependency.Version
			if ch.Lock != nil {
				for _, locked := range ch.Lock.Dependencies {
					if locked.Name == dependency.Name {
						version = locked.Version
					}
				}
			}
			files.remote = true
			sub, err = pull(dependency.Repository, dependency.Name, version, req)
		}
		if err != nil {
			return fmt.Errorf("chart %s: dependency %s: %w", ch.Name(), dependency.Name, err)
		}
		ch.AddDependency(sub)
	}
	return nil
}
