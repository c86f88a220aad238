// The page: it asks the server for each search, and shows what comes back as text, never as markup.

const [form, words, file, picture, status, error, photos, projects, drop] = [
  "form", "#words", "#file", "#picture", "#status", "#error", "#photos", "#projects", "#drop",
].map((selector) => document.querySelector(selector));

/** What is searched with beside the words: a file, or a photo of the gallery. */
let wanted = null;
let running = new AbortController();

/** A copy of an element of the page's making: its class, text and children. */
function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

async function ask(address, options) {
  const response = await fetch(address, options);
  const answer = await response.json();
  if (!response.ok) throw answer;
  return answer;
}

async function search() {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  const query = new URLSearchParams();
  const project = form.elements.project.value;
  if (project) query.set("project", project);
  if (wanted?.id) query.set("like", wanted.id);
  else if (!wanted && words.value.trim()) query.set("words", words.value);
  const upload = wanted instanceof File ? { method: "POST", body: wanted } : {};
  photos.ariaBusy = true;
  const start = performance.now();
  try {
    const found = await ask(`/search?${query}`, { ...upload, signal });
    show(found, project, Math.round(performance.now() - start));
  } catch (problem) {
    if (!signal.aborted) complain(problem);
  }
  if (!signal.aborted) photos.ariaBusy = false;
}

function show(found, project, milliseconds) {
  const count = found.length === 1 ? "1 photo" : `${found.length} photos`;
  const like = wanted ? `like ${wanted.name}` : `for “${words.value.trim()}”`;
  const searched = wanted || words.value.trim();
  const where = project ? ` in ${project}` : "";
  status.textContent = searched ? `${count} ${like}${where}, in ${milliseconds} ms` : `The newest ${count}${where}`;
  error.hidden = true;
  photos.replaceChildren(...found.map(card));
}

function card({ id, name, project, similarity }) {
  const image = element("img", { src: `/photos/${id}`, alt: name, loading: "lazy", draggable: false });
  const button = element("button", { type: "button", title: `More like ${name}` }, image);
  button.addEventListener("click", () => searchLike({ id, name }, image.src));
  const caption = element("p", {}, element("span", { className: "name", textContent: name }));
  if (project) caption.append(element("span", { className: "project", textContent: project }));
  const item = element("li", {}, button, caption);
  if (similarity !== undefined) {
    const meter = element("meter", { min: 0, max: 1, value: similarity, ariaLabel: `Similarity of ${name}` });
    item.append(element("div", { className: "similarity" }, meter, element("span", { textContent: similarity.toFixed(3) })));
  }
  return item;
}

function complain({ message, hint }) {
  status.textContent = "";
  photos.replaceChildren();
  error.replaceChildren(element("strong", { textContent: message ?? "The server does not answer." }));
  if (hint) error.append(element("span", { textContent: hint }));
  error.hidden = false;
}

/** Searches with a picture; with nothing, by the words again. */
function searchLike(picked, source) {
  URL.revokeObjectURL(picture.src);
  wanted = picked;
  picture.hidden = !picked;
  if (picked) [picture.src, words.value] = [source ?? URL.createObjectURL(picked), ""];
  scrollTo({ top: 0 });
  search();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  searchLike(null);
});
words.addEventListener("search", () => words.value || searchLike(null));
projects.addEventListener("change", search);
file.addEventListener("change", () => {
  if (file.files[0]) searchLike(file.files[0]);
  file.value = "";
});
picture.addEventListener("error", () => (picture.hidden = true));
addEventListener("paste", ({ clipboardData }) => clipboardData.files[0] && searchLike(clipboardData.files[0]));
for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", over);
    if (name === "drop" && event.dataTransfer.files[0]) searchLike(event.dataTransfer.files[0]);
  });
}

search();
for (const project of await ask("/projects").catch(() => [])) {
  const choice = element("input", { type: "radio", name: "project", value: project });
  projects.append(element("label", {}, choice, element("span", { textContent: project })));
}
